"""Requests are answered as files are mapped: the same model, the same answers, and rows without one say why."""

import base64
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pyarrow.parquet as parquet
import pytest
from PIL import Image

import onnxfuse
from onnxfuse.bulk.answering import Answering
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.io import folders
from tests.bulk.conftest import TEXTS
from tests.cli.test_cli import expect_one_line

HALF = "half \ud800"
ODD = ["", " ", None, 5, HALF, {"other": "a"}, {"text": None}, "a" * 300_000, ["a"]]
WHY = [
    "is empty",
    "is empty",
    "is null",
    "is int, wanted a text",
    "holds half a character (a lone surrogate)",
    "has no text",
    "is null",
    "has 300000 characters, at most 262144 are read",
    "is list, wanted a text",
]


def mapped(folder, rows, tmp_path, **options):
    """What ``map`` writes for them."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row if isinstance(row, dict) else {"text": row}) + "\n" for row in rows))
    onnxfuse.map(folder / folders.MODEL, path, tmp_path / "out", **options)
    found = parquet.read_table(tmp_path / "out").to_pylist()
    return [{name: value for name, value in row.items() if name != "id"} for row in found]


def require_alike(found, wanted):
    assert [set(each) for each in found] == [set(each) for each in wanted]
    for seen, row in zip(found, wanted, strict=True):
        for name, value in row.items():
            if isinstance(value, list | float):
                np.testing.assert_allclose(seen[name], value, rtol=0, atol=1e-6)  # float32, other batches
            else:
                assert seen[name] == value


def test_embeddings_are_those_of_map_and_bad_rows_say_why(encoder, tmp_path):
    """Rows without an answer do not disturb those between them."""
    serving = Answering(encoder[1] / folders.MODEL)
    rows = [row for pair in zip(TEXTS[: len(ODD)], ODD, strict=True) for row in pair]
    found = serving.answers(rows)
    assert [each["error"] for each in found[1::2]] == WHY
    require_alike(found[::2], mapped(encoder[1], rows[::2], tmp_path))
    assert serving.answers([]) == [] and serving.answers([None]) == [{"error": "is null"}]
    assert json.loads(json.dumps(found)) == found


def test_prompts_stand_in_front(encoder, tmp_path):
    found = Answering(encoder[1] / folders.MODEL, prompt_name="query").answers(TEXTS[:5])
    require_alike(found, mapped(encoder[1], TEXTS[:5], tmp_path, prompt_name="query"))
    plain = Answering(encoder[1] / folders.MODEL).answers(TEXTS[:1])
    assert plain[0]["embedding"] != found[0]["embedding"]


def test_labels_of_pairs(made, tmp_path):
    folder = made("bert", "BertForSequenceClassification", id2label={0: "good", 1: "bad", 2: "so so"})[1]
    rows = [{"one": first, "two": second} for first, second in zip(TEXTS[:6], TEXTS[6:12], strict=True)]
    found = Answering(folder, ("one", "two")).answers([*rows, {"one": "a"}])
    assert found.pop() == {"error": "has no two"}
    require_alike(found, mapped(folder, rows, tmp_path, columns=("one", "two")))
    with pytest.raises(UsageError, match=r"--prompt-name query: .* is used without prompts; leave it out"):
        Answering(folder, prompt_name="query")
    with pytest.raises(UsageError, match="takes 1 to 2 columns, and 3 are given"):
        Answering(folder, ("one", "two", "three"))


def test_answers_in_contexts(made, tmp_path):
    folder = made("bert", "BertForQuestionAnswering")[1]
    rows = [{"question": "what is it", "context": text} for text in TEXTS[:4]]
    found = Answering(folder).answers([*rows, "a text"])
    assert found.pop() == {"error": "has no context"}
    require_alike(found, mapped(folder, rows, tmp_path))


def test_labels_of_images(made):
    folder = made("vit", "ViTForImageClassification", num_labels=5)[1]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))
    file = io.BytesIO()
    image.save(file, "PNG")
    told = base64.b64encode(file.getvalue()).decode()
    found = Answering(folder).answers([told, {"image": told}, "no base64!", {"image": told[:400]}, {}, 5])
    (wanted,) = onnxfuse.load(folder).classify(image)
    for seen in found[:2]:
        assert seen["label"] == wanted["label"] and seen["score"] == pytest.approx(wanted["score"], abs=1e-6)
    assert [each["error"][:33] for each in found[2:]] == [
        "has no image: the bytes of its fi",
        "cannot be read as an image (image",
        "has no image: the bytes of its fi",
        "has no image: the bytes of its fi",
    ]


@pytest.mark.parametrize("head", ["BertForMaskedLM", "BertForTokenClassification"])
def test_what_map_does_not_run_is_not_packaged(made, cli, tmp_path, head):
    folder = made("bert", head)[1]
    expect_one_line(
        cli("package", folder, "--for", "ray-serve", "-o", tmp_path / "served"), ModelError.exit_code, "map is for", "export it"
    )
    assert not (tmp_path / "served").exists()


def asked(rows, wait=180.0):
    """The answer of the application, which has some time to start: half a minute alone, and other tests run beside it."""
    body = rows if isinstance(rows, bytes) else json.dumps({"rows": rows}).encode()
    request = urllib.request.Request("http://127.0.0.1:8000", body, {"content-type": "application/json"})
    until = time.monotonic() + wait
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            if error.code == 400:
                return error.code, json.loads(error.read())
        except OSError:
            pass
        assert time.monotonic() < until, "no answer came"
        time.sleep(0.3)


def test_the_line_that_package_prints_serves_it(encoder, cli, tmp_path):
    """Ray Serve itself, over HTTP."""
    pytest.importorskip("ray.serve", reason="the extra ray-serve is not installed")
    told = cli("package", encoder[1] / folders.MODEL, "--for", "ray-serve", "-o", tmp_path / "served", "--json")
    assert told.returncode == 0, told.stderr
    line = json.loads(told.stdout)["models"]["float"]["use"]
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ADDRESS": "local"}  # not the cluster of a test beside
    place = os.path.dirname(sys.executable)
    with (tmp_path / "log").open("wb") as log:
        served = subprocess.Popen(
            f"exec {place}/{line}", shell=True, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        wanted = Answering(encoder[1] / folders.MODEL).answers(TEXTS[:40])
        code, found = asked([*TEXTS[:40], ""])
        assert code == 200 and found["answers"].pop() == {"error": "is empty"}
        require_alike(found["answers"], wanted)
        assert asked([]) == (200, {"answers": []})
        for body, said in (
            (b"no json", "the request is no JSON with rows"),
            (b'{"rows": 5}', "rows is int"),
            (b"[]", "no JSON with"),
        ):
            code, found = asked(body)
            assert code == 400 and said in found["error"] and 'wanted {"rows": ["a text", ...]}' in found["error"]
    finally:
        os.killpg(served.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            served.wait(20)
        subprocess.run(["pkill", "-KILL", "-g", str(served.pid)], check=False)
        served.wait(20)

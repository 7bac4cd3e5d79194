"""The answers of map are those of load, each row's once; a run that was stopped goes on, and what cannot be answered says why."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import onnxfuse
from onnxfuse.bulk import facts, parts, unchanged, work
from onnxfuse.errors import BadRowsError, InterruptedWorkError, ModelError, StorageError, UsageError
from tests.bulk.conftest import TEXTS
from tests.cli import documented
from tests.cli.test_cli import expect_one_line
from tests.marks import OPENVINO

SMALL = {"part_rows": 70, "batch_tokens": 200}


def table(folder):
    return pq.read_table(folder)


def vectors(folder):
    return np.stack(table(folder)["embedding"].to_numpy(zero_copy_only=False))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def bad(folder):
    return [json.loads(line) for path in sorted(folder.glob("_bad-*")) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("prompt", [None, "query"])
@pytest.mark.parametrize("runtime", [None, pytest.param("openvino", marks=OPENVINO)])
def test_embeddings_are_those_of_encode(encoder, lines, tmp_path, prompt, runtime):
    made = onnxfuse.map(encoder[1], lines, tmp_path / "out", prompt_name=prompt, runtime=runtime, threads=2, **SMALL)
    wanted = onnxfuse.load(encoder[1], runtime=runtime).encode(TEXTS, prompt_name=prompt)
    assert table(made)["id"].to_pylist() == list(range(300))
    assert np.abs(vectors(made) - wanted).max() < 1e-5  # other batches: rounding
    assert (made.rows, made.bad, made.before, made.parts) == (300, 0, 0, 5)
    tokens = onnxfuse.load(encoder[1])._serving.tokens
    assert made.tokens == sum(
        len(each.ids) for each in tokens.encoded([("find this: " if prompt else "") + text for text in TEXTS])
    )
    assert made.seconds >= made.tokenizing > 0


def test_the_columns_that_are_asked_for(encoder, lines, tmp_path):
    made = onnxfuse.map(encoder[1], lines, tmp_path / "a", columns=["key"], id="key", keep=["more", "text"], **SMALL)
    found = table(made)
    assert found.schema.names == ["id", "more", "text", "embedding"]
    assert found["id"].to_pylist() == [f"k{at}" for at in range(300)] and found["text"].to_pylist() == TEXTS
    assert found["more"].to_pylist() == [str(at) for at in range(300)]  # of JSON as texts
    typed = pa.table({"text": pa.array(TEXTS, pa.large_string()), "n": range(300), "on": pa.array(range(300), pa.date32())})
    pq.write_table(typed, tmp_path / "rows.parquet")
    found = table(onnxfuse.map(encoder[1], tmp_path / "rows.parquet", tmp_path / "b", id="n", keep=["on", "text"], **SMALL))
    assert found["on"].type == pa.date32() and found["on"].to_pylist() == typed["on"].to_pylist()
    assert found["id"].type == pa.int64() and found["text"].to_pylist() == TEXTS
    assert np.abs(vectors(tmp_path / "b") - onnxfuse.load(encoder[1]).encode(TEXTS)).max() < 1e-5


def test_files_whose_columns_differ(encoder, tmp_path):
    """A column that a later file lacks is a reason for its rows; one of another type ends the run."""
    pq.write_table(pa.table({"text": TEXTS[:3], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"other": TEXTS[:2], "n": [4, 5]}), tmp_path / "b.parquet")
    pattern = tmp_path / "?.parquet"
    assert onnxfuse.map(encoder[1], pattern, tmp_path / "one", keep=["n"], max_bad=2).rows == 3
    assert [row["reason"] for row in bad(tmp_path / "one")] == 2 * ["has no text"]
    pq.write_table(pa.table({"text": TEXTS[:2], "n": ["x", "y"]}), tmp_path / "b.parquet")
    with pytest.raises(
        UsageError, match=r"b\.parquet: column n is string, and int64 in \S+/a\.parquet; write both with one type"
    ):
        onnxfuse.map(encoder[1], pattern, tmp_path / "two", keep=["n"])
    with pytest.raises(
        UsageError, match=r"b\.parquet: column n is string, and int64 in \S+/a\.parquet; write both with one type"
    ):
        onnxfuse.map(encoder[1], pattern, tmp_path / "two", id="n")
    assert not list((tmp_path / "two").glob("*part-*"))


@pytest.mark.parametrize(
    ("first", "later", "refused"),
    [
        (pa.int32(), pa.float64(), True),
        (pa.float32(), pa.float64(), True),
        (pa.timestamp("us"), pa.timestamp("ns"), True),
        (pa.timestamp("us"), pa.timestamp("us", tz="UTC"), True),
        (pa.list_(pa.int64()), pa.list_(pa.float64()), True),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.int8()), ("b", pa.int8())]), True),
        (pa.string(), pa.large_string(), False),
        (pa.string(), pa.dictionary(pa.int8(), pa.string()), False),
        (pa.list_(pa.int64()), pa.list_(pa.field("element", pa.int64())), False),
    ],
)
def test_what_is_kept_is_never_cut_to_another_files_type(encoder, tmp_path, first, later, refused):
    for name, kind in (("a", first), ("b", later)):
        pq.write_table(pa.table({"text": TEXTS[:2], "k": pa.array([None, None], kind)}), tmp_path / f"{name}.parquet")
    pattern, out = tmp_path / "?.parquet", tmp_path / "out"
    if refused:
        with pytest.raises(UsageError, match=r"b\.parquet: column k is .*, and .* in \S+/a\.parquet; write both with one type"):
            onnxfuse.map(encoder[1], pattern, out, keep=["k"])
        assert not list(out.glob("*part-*"))
    else:
        assert onnxfuse.map(encoder[1], pattern, out, keep=["k"]).rows == 4


@pytest.mark.parametrize("kind", [pa.time64("ns"), pa.list_(pa.time64("ns")), pa.struct([("a", pa.time64("ns"))])])
def test_nanoseconds_that_python_would_drop_are_refused(encoder, tmp_path, kind):
    pq.write_table(pa.table({"text": TEXTS[:2], "k": pa.array([None, None], kind)}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"column k is .*time64\[ns\].*, whose nanoseconds Python has not; write it with micro"):
        onnxfuse.map(encoder[1], tmp_path / "a.parquet", tmp_path / "out", keep=["k"])
    assert onnxfuse.map(encoder[1], tmp_path / "a.parquet", tmp_path / "out").rows == 2


def test_two_columns_of_one_name_are_refused(encoder, tmp_path):
    pq.write_table(pa.table([TEXTS[:2], TEXTS[2:4]], names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"a\.parquet has two columns of one name \(text\); call one of them otherwise"):
        onnxfuse.map(encoder[1], tmp_path / "a.parquet", tmp_path / "out")


def test_a_column_may_come_late_in_jsonl(encoder, tmp_path):
    rows = [{"text": text} for text in (TEXTS * 4)[:1100]] + [{"text": "the last", "note": "x"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = table(onnxfuse.map(encoder[1], tmp_path / "a.jsonl", tmp_path / "out", keep=["note"]))
    assert found["note"].to_pylist() == 1100 * [None] + ["x"]
    with pytest.raises(UsageError, match="has no column 'nowhere'; choose with --keep among text"):
        onnxfuse.map(encoder[1], tmp_path / "a.jsonl", tmp_path / "more", keep=["nowhere"])


@pytest.mark.parametrize("content", [b"", b'{"row": 1, "id": 1, "reason": "cut off in the'])
def test_a_side_file_that_lacks_rows_is_made_again(encoder, lines, tmp_path, content):
    lines.write_text('{"text": 1}\n{"text": 2}\n' + lines.read_text())
    onnxfuse.map(encoder[1], lines, tmp_path / "out", max_bad=2, **SMALL)
    whole = files(tmp_path / "out")
    (tmp_path / "out" / parts.BAD.format(0)).write_bytes(content)
    assert onnxfuse.map(encoder[1], lines, tmp_path / "out", max_bad=2, **SMALL).made == 70
    assert files(tmp_path / "out") == whole


def test_no_side_file_of_another_job_stays(encoder, lines, tmp_path):
    good = lines.read_text()
    lines.write_text('{"text": 1}\n' + good)
    onnxfuse.map(encoder[1], lines, tmp_path / "out", max_bad=1, **SMALL)
    for part in (tmp_path / "out").glob("part-*"):
        part.unlink()
    lines.write_text(good)
    assert onnxfuse.map(encoder[1], lines, tmp_path / "out", **SMALL).bad == 0
    assert not list((tmp_path / "out").glob("_bad-*"))


@pytest.mark.parametrize(
    ("model", "data", "out"), [("m" * 300, "rows.jsonl", "out"), ("m", "r" * 300, "out"), ("m", "r", "o" * 300)]
)
def test_names_that_no_file_has(model, data, out):
    with pytest.raises(UsageError, match=r" is called \w{40}\.\.\., and no file's name has more than 255 bytes"):
        onnxfuse.map(model, data, out)


def test_labels_of_texts_and_of_pairs(made, lines, tmp_path):
    folder = made("bert", "BertForSequenceClassification", id2label={0: "good", 1: "bad", 2: "so so"})[1]
    model = onnxfuse.load(folder)
    for name, columns, given in (
        ("one", (), TEXTS),
        ("two", ("text", "key"), [(text, f"k{at}") for at, text in enumerate(TEXTS)]),
    ):
        found = table(onnxfuse.map(folder, lines, tmp_path / name, columns=columns, **SMALL))
        wanted = [labels[0] for labels in model.classify(given)]
        assert found["label"].to_pylist() == [each["label"] for each in wanted] and len(set(found["score"].to_pylist())) > 100
        assert found["score"].to_pylist() == pytest.approx([each["score"] for each in wanted], abs=1e-5)


def test_answers_to_questions(made, tmp_path):
    folder = made("bert", "BertForQuestionAnswering")[1]
    rows = [{"question": TEXTS[at][:30], "context": " ".join(TEXTS[at : at + 3])} for at in range(12)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = table(onnxfuse.map(folder, tmp_path / "q.jsonl", tmp_path / "out", part_rows=5)).to_pylist()
    model = onnxfuse.load(folder)
    for row, got in zip(rows, found, strict=True):
        wanted = model.answer(row["question"], row["context"])
        assert {**wanted, "score": pytest.approx(wanted["score"], abs=1e-5)} == {name: got[name] for name in wanted}


def test_images_and_those_that_are_broken(made, tmp_path):
    folder, photos, pick = (
        made("vit", "ViTForImageClassification", num_labels=5)[1],
        tmp_path / "photos",
        np.random.default_rng(0),
    )
    photos.mkdir()
    for at in range(20):
        Image.fromarray(pick.integers(0, 255, (40, 50, 3), np.uint8)).save(photos / f"{at:02}.png")
    (photos / "07.png").write_bytes((photos / "07.png").read_bytes()[:500])
    (photos / "11.png").write_bytes(b"")
    with pytest.raises(BadRowsError, match=r"2 of 20 rows are bad, at most 0 may be \(row 7 cannot be read as an image"):
        onnxfuse.map(folder, photos, tmp_path / "out", part_rows=8, keep=["path"])
    found = table(tmp_path / "out")
    whole = [at for at in range(20) if at not in (7, 11)]
    assert found["id"].to_pylist() == whole and found["path"].to_pylist() == [f"{at:02}.png" for at in whole]
    wanted = onnxfuse.load(folder).classify([photos / f"{at:02}.png" for at in whole])
    assert found["label"].to_pylist() == [labels[0]["label"] for labels in wanted]
    assert [row["row"] for row in bad(tmp_path / "out")] == [7, 11]


BAD = [
    ('{"text": null}', "is null"),
    ('{"other": "x"}', "has no text"),
    ('{"text": ""}', "is empty"),
    ("[]", "is a JSON list, wanted an object"),
    ('{"text": 5}', "is int, wanted a text"),
    ('{"text": " \\n"}', "is empty"),
    ('{"text": "\\ud800"}', "holds half a character (a lone surrogate)"),
    (json.dumps({"text": "a " * 500_000}), "has 1000000 characters, at most 262144 are read"),
    ("{", "is not JSON"),
    ('{"text": "a", "n": ' + "1" * 5000 + "}", "holds a number of more than 4300 digits"),
]


@pytest.mark.parametrize(("limit", "code"), [("0", 9), ("9", 9), ("10", 0), ("9.9%", 9), ("10%", 0)])
def test_bad_rows_are_in_the_side_file_and_max_bad_decides(encoder, cli, tmp_path, limit, code):
    """Ten of a hundred rows."""
    lines = [json.dumps({"text": text}) for text in TEXTS[:90]]
    for at, (line, _) in enumerate(BAD):
        lines.insert(at * 10, line)
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    result = cli("map", encoder[1], "--input", "rows.jsonl", "-o", "out", "--part-rows", "32", "--max-bad", limit, "--json")
    assert result.returncode == code, result.stderr
    answer = json.loads(result.stdout)
    documented.require("map", answer)
    assert answer.get("error", {}).get("code", 0) == code
    assert (answer["rows"], answer["bad"], answer["parts"], len(answer["bad_files"])) == (90, 10, 4, 3)
    if code:
        expect_one_line(result, 9, "10 of 100 rows are bad, at most", "(row 0 is null)", "_bad-000000.jsonl")
    assert bad(tmp_path / "out") == [{"row": 10 * at, "id": 10 * at, "reason": reason} for at, (_, reason) in enumerate(BAD)]
    assert table(tmp_path / "out")["id"].to_pylist() == [at for at in range(100) if at % 10]


def test_what_is_kept_of_a_row_can_make_it_bad(encoder, tmp_path):
    """Half a character has no UTF-8; nesting that JSON's reader takes can be too deep for its writer."""
    deep = "[" * 900 + "]" * 900
    kept = ["1", '"\\ud800"', '{"a": "\\ud800"}', deep, "[" * 2000 + "]" * 2000, "2"]
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"text": "a", "k": {value}}}\n' for value in kept))
    for name in ("id", "keep"):
        asked = {"id": "k"} if name == "id" else {"keep": ["k"]}
        made = onnxfuse.map(encoder[1], tmp_path / "rows.jsonl", tmp_path / name, max_bad=1.0, **asked)
        reasons = {row["row"]: row["reason"] for row in bad(tmp_path / name)}
        assert made.rows + made.bad == 6 and {0, 5}.isdisjoint(reasons)
        assert reasons[1] == reasons[2] == "k holds half a character (a lone surrogate)"
        assert reasons[4] == "is JSON nested too deeply"
    (tmp_path / "empty.jsonl").write_text(f'{{"text": "a", "k": 1}}\n{{"text": "", "k": {deep}}}\n{{"text": "b", "k": 2}}\n')
    made = onnxfuse.map(encoder[1], tmp_path / "empty.jsonl", tmp_path / "deep", id="k", max_bad=1.0)
    assert (made.rows, [row["reason"] for row in bad(tmp_path / "deep")]) == (2, ["is empty"])


@pytest.mark.parametrize("asked", ["29%", "0.29"])
def test_a_share_of_bad_rows_is_exact(encoder, cli, tmp_path, asked):
    """In floating point 0.29 * 100 is less than 29."""
    (tmp_path / "rows.txt").write_text("a\n" * 71 + "\n" * 29)
    assert cli("map", encoder[1], "--input", "rows.txt", "-o", "out", "--max-bad", asked).returncode == 0
    assert cli("map", encoder[1], "--input", "rows.txt", "-o", "out", "--max-bad", "28%").returncode == 9


def test_all_rows_bad_is_a_part_of_none(encoder, tmp_path):
    (tmp_path / "rows.txt").write_text("\n\n \n")
    with pytest.raises(BadRowsError, match="3 of 3 rows are bad"):
        onnxfuse.map(encoder[1], tmp_path / "rows.txt", tmp_path / "out")
    assert table(tmp_path / "out").num_rows == 0 and len(bad(tmp_path / "out")) == 3
    assert onnxfuse.map(encoder[1], tmp_path / "rows.txt", tmp_path / "out", max_bad=1.0).rows == 0


# Exactly once ----------------------------------------------------------------------------------------------------


def test_threads_and_runs_do_not_change_a_byte(encoder, lines, tmp_path):
    for name, threads in (("one", 1), ("two", 2), ("three", 3)):
        onnxfuse.map(encoder[1], lines, tmp_path / name, threads=threads, **SMALL)
    assert files(tmp_path / "one") == files(tmp_path / "two") == files(tmp_path / "three")


def test_a_finished_run_is_left_as_it_is(encoder, lines, tmp_path):
    onnxfuse.map(encoder[1], lines, tmp_path / "out", **SMALL)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    again = onnxfuse.map(encoder[1], lines, tmp_path / "out", **SMALL)
    assert (again.rows, again.before, again.made, again.parts) == (300, 300, 0, 5)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")} == before


@pytest.mark.parametrize("lost", [(0,), (2, 3), (4,), (0, 1, 2, 3, 4)])
def test_parts_that_are_not_there_are_made_again(encoder, lines, tmp_path, lost):
    lines.write_text(lines.read_text() + '{"text": null}\n')
    made = onnxfuse.map(encoder[1], lines, tmp_path / "out", max_bad=1, **SMALL)
    whole = files(tmp_path / "out")
    for number in lost:
        (tmp_path / "out" / parts.NAME.format(number)).unlink()
    again = onnxfuse.map(encoder[1], lines, tmp_path / "out", max_bad=1, **SMALL)
    assert files(tmp_path / "out") == whole
    assert (again.rows, again.bad, again.made) == (made.rows, 1, 301 - again.before)
    assert again.before == sum(21 if number == 4 else 70 for number in range(5) if number not in lost)


@pytest.mark.parametrize("spoil", ["cut", "side", "other"])
def test_what_is_no_part_of_this_job_is_made_again(encoder, lines, tmp_path, spoil):
    lines.write_text('{"text": null}\n' + lines.read_text())
    onnxfuse.map(encoder[1], lines, tmp_path / "out", max_bad=1, **SMALL)
    whole, first = files(tmp_path / "out"), tmp_path / "out" / parts.NAME.format(0)
    if spoil == "cut":
        first.write_bytes(first.read_bytes()[:1000])
    elif spoil == "side":
        (tmp_path / "out" / parts.BAD.format(0)).unlink()
    else:
        shutil.copyfile(tmp_path / "out" / parts.NAME.format(1), first)
    (tmp_path / "out" / f"{parts.UNFINISHED}x-part-000001.parquet").write_text("left over")
    onnxfuse.map(encoder[1], lines, tmp_path / "out", max_bad=1, **SMALL)
    assert files(tmp_path / "out") == whole


def test_ctrl_c_keeps_what_is_done(encoder, lines, tmp_path, monkeypatch):
    onnxfuse.map(encoder[1], lines, tmp_path / "whole", **SMALL)
    made, count = work.Worker.part, []

    def part(self, *given):
        count.append(1)
        if len(count) == 3:
            raise KeyboardInterrupt
        return made(self, *given)

    monkeypatch.setattr(work.Worker, "part", part)
    with pytest.raises(InterruptedWorkError, match="the parts that are done are kept, and the same command goes on"):
        onnxfuse.map(encoder[1], lines, tmp_path / "out", **SMALL)
    again = onnxfuse.map(encoder[1], lines, tmp_path / "out", **SMALL)
    assert again.before == 140 and files(tmp_path / "out") == files(tmp_path / "whole")


def test_killed_at_any_moment_it_goes_on(encoder, lines, tmp_path):
    """kill -9 at five moments of one job, which is then finished: the same bytes, no row twice and none lost."""
    lines.write_text("".join(json.dumps({"text": f"{text} {at}"}) + "\n" for at in range(20) for text in TEXTS) + '{"text": 1}\n')
    command = ["map", str(encoder[1]), "--input", str(lines), "--part-rows", "500", "--max-bad", "1", "-o"]
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "onnxfuse", *command, tmp_path / "whole"], check=True, capture_output=True)
    took, pick, killed = time.monotonic() - start, random.Random(0), 0
    for _ in range(5):
        run = subprocess.Popen([sys.executable, "-m", "onnxfuse", *command, tmp_path / "out"], stderr=subprocess.DEVNULL)
        time.sleep(took * pick.uniform(0.5, 0.9))
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
            killed += 1
        run.wait()
    subprocess.run([sys.executable, "-m", "onnxfuse", *command, tmp_path / "out"], check=True, capture_output=True)
    assert killed and files(tmp_path / "out") == files(tmp_path / "whole")
    assert table(tmp_path / "out")["id"].to_pylist() == list(range(6000))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch_tokens": 100}, "was begun with batch tokens 200, and this is 100"),
        ({"part_rows": 71}, "was begun with part rows 70, and this is 71"),
        ({"keep": ["key"]}, "was begun with keep none, and this is key"),
        ({"id": "key"}, "was begun with id none, and this is key"),
        ({"columns": ["key"]}, "was begun with columns text, and this is key"),
        ({"prompt_name": "query"}, "was begun with prompt name none, and this is query"),
        ({"runtime": "openvino"}, "was begun with settings ort, 1 threads"),
    ],
)
def test_another_option_is_refused(encoder, lines, tmp_path, change, said):
    onnxfuse.map(encoder[1], lines, tmp_path / "out", **SMALL)
    before = files(tmp_path / "out")
    with pytest.raises(UsageError) as caught:
        onnxfuse.map(encoder[1], lines, tmp_path / "out", **SMALL | change)
    assert said in str(caught.value) and "choose a new folder with --output" in str(caught.value)
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize("what", ["input", "more input", "weights", "tokenizer"])
def test_another_input_or_model_is_refused(encoder, lines, tmp_path, what):
    model = shutil.copytree(encoder[1], tmp_path / "model")
    onnxfuse.map(model, tmp_path / "rows*.jsonl", tmp_path / "out", **SMALL)
    said = "was begun with other input: names, sizes or times of its files have changed"
    if what == "input":
        lines.write_text(lines.read_text().replace("0", "1", 1))
    elif what == "more input":
        shutil.copyfile(lines, tmp_path / "rows2.jsonl")
    else:
        name = "model_optimized.onnx" if what == "weights" else "tokenizer.json"
        content = bytearray((model / name).read_bytes())
        place = content.rindex(b"]") if what == "tokenizer" else len(content) // 2
        content[place : place + 1] = b" ]" if what == "tokenizer" else bytes([content[place] ^ 1])
        (model / name).write_bytes(content)
        said = f"was begun with another model: {name} is not the same"
    with pytest.raises(UsageError, match=said):
        onnxfuse.map(model, tmp_path / "rows*.jsonl", tmp_path / "out", **SMALL)


CHANGED = r" changed while it was read: names, sizes or times of its files; choose a new folder with --output"


@pytest.mark.parametrize(
    ("ending", "change", "after"),
    [
        *((ending, *each) for ending in ("jsonl", "parquet", "csv", "tsv", "txt") for each in (("other", 0), ("append", 1))),
        *((ending, *each) for ending in ("jsonl", "parquet") for each in (("cut", 1), ("remove", 0), ("remove", 1))),
    ],
)
def test_an_input_that_changes_meanwhile_ends_the_run(encoder, tmp_path, ending, change, after):
    """Of what was read then nothing is there; where a part is, the same command does not go on with another input."""
    path, other, out, kept = (tmp_path / name for name in (f"rows.{ending}", f"other.{ending}", "out", f"kept.{ending}"))
    for name, texts in ((path, TEXTS), (other, [f"{text} again" for text in TEXTS])):
        write_rows(name, [text.replace('"', "") for text in texts])
    whole = onnxfuse.map(encoder[1], path, tmp_path / "whole", **SMALL)
    shutil.copy2(path, kept)

    def meddle(step, *told):
        if step == "mapping" and len(list(out.glob("part-*"))) == after and path.is_file() and other.is_file():
            if change == "append":
                path.write_bytes(path.read_bytes() + other.read_bytes())
            elif change == "cut":
                os.truncate(path, path.stat().st_size // 2)
            else:
                path.unlink()
            if change == "other":
                shutil.copyfile(other, path)
            other.unlink()

    kind, said = (
        (StorageError, "cannot read .*: No such file or directory; see that") if change == "remove" else (UsageError, CHANGED)
    )
    with pytest.raises(kind, match=rf"rows\.{ending}{said}" if change != "remove" else said):
        onnxfuse.map(encoder[1], path, out, progress=meddle, **SMALL)
    assert json.loads((out / "_onnxfuse.json").read_text())["done"] is None
    assert [each.name for each in out.glob("part-*")] == [parts.NAME.format(at) for at in range(after)]
    if after and change != "remove":
        with pytest.raises(UsageError, match=r"was begun with other input|rows\.parquet cannot be read"):
            onnxfuse.map(encoder[1], path, out, **SMALL)
    kept.replace(path)  # as it was, and so are size and time
    again = onnxfuse.map(encoder[1], path, out, **SMALL)
    assert again.before == 70 * after and files(out) == files(whole.path)


def write_rows(path, texts):
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": texts}), path)
    elif path.suffix == ".txt":
        path.write_text("".join(f"{text}\n" for text in texts))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        path.write_text("text\n" + "".join(f'"{text}"\n' for text in texts))


@pytest.mark.parametrize("change", ["touch", "remove", "add"])
def test_a_folder_of_images_that_changes_meanwhile_ends_the_run(made, tmp_path, change):
    photos, pick, out = tmp_path / "photos", np.random.default_rng(0), tmp_path / "out"
    photos.mkdir()
    for at in range(9):
        Image.fromarray(pick.integers(0, 255, (40, 50, 3), np.uint8)).save(photos / f"{at}.png")
    folder, last = made("vit", "ViTForImageClassification", num_labels=5)[1], photos / "8.png"

    def meddle(step, *told):
        if step == "mapping" and not (photos / "9.png").exists() and last.exists():
            if change == "add":
                shutil.copyfile(last, photos / "9.png")
            else:
                last.touch() if change == "touch" else last.unlink()

    kind, said = (StorageError, r"cannot read \S+8\.png: No such") if change == "remove" else (UsageError, f"photos{CHANGED}")
    with pytest.raises(kind, match=said):
        onnxfuse.map(folder, photos, out, progress=meddle, part_rows=2)
    assert json.loads((out / "_onnxfuse.json").read_text())["done"] is None
    assert len(list(out.glob("part-*"))) == (5 if change == "add" else 0)  # which were there at the begin, and are as they were


@pytest.mark.parametrize("bad_rows", [0, 1])
def test_parts_are_no_input_of_their_own_pattern(encoder, tmp_path, bad_rows):
    """They come while the run lasts, and are there when it is taken up again."""
    write_rows(tmp_path / "rows.jsonl", TEXTS + bad_rows * [""])
    write_rows(tmp_path / "rows.parquet", TEXTS)
    for ending in ("jsonl", "parquet"):
        pattern, out = str(tmp_path / f"**/*.{ending}"), tmp_path / f"out-{ending}"
        assert onnxfuse.map(encoder[1], pattern, out, max_bad=bad_rows, **SMALL).rows == 300
        (out / parts.NAME.format(0)).unlink()
        assert onnxfuse.map(encoder[1], pattern, out, max_bad=bad_rows, **SMALL).rows == 300
        shutil.rmtree(out)


def test_a_model_that_changes_before_it_is_opened_ends_the_run(encoder, lines, tmp_path):
    model = shutil.copytree(encoder[1], tmp_path / "model")
    other = (model / "model.onnx").read_bytes()

    def meddle(step, *told):
        if step == f"opening {model}":
            real = unchanged.digests

            def once(*given):  # what the run begins with is read; then somebody writes
                monkeypatch.undo()
                found = real(*given)
                (model / "model_optimized.onnx").write_bytes(other)
                return found

            monkeypatch.setattr(facts, "digests", once)

    with (
        pytest.MonkeyPatch.context() as monkeypatch,
        pytest.raises(
            UsageError, match=r"model changed since the run began: model_optimized\.onnx is not the same; put that back and run"
        ),
    ):
        onnxfuse.map(model, lines, tmp_path / "out", progress=meddle, **SMALL)
    assert not list((tmp_path / "out").glob("part-*"))


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_record_that_cannot_be_read_is_told_as_maps_own(encoder, lines, tmp_path, text):
    onnxfuse.map(encoder[1], lines, tmp_path / "out", **SMALL)
    (tmp_path / "out" / "_onnxfuse.json").write_text(text)
    with pytest.raises(UsageError, match=r"_onnxfuse\.json, map's own record, cannot be read; choose a new folder with --output"):
        onnxfuse.map(encoder[1], lines, tmp_path / "out", **SMALL)


# Places ----------------------------------------------------------------------------------------------------------


def test_folders_of_others_are_left_alone(encoder, lines, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match=r"out holds thesis\.txt, and no _onnxfuse\.json of map; choose a new folder"):
        onnxfuse.map(encoder[1], lines, tmp_path / "out")
    with pytest.raises(UsageError, match=r"is a file, and the parts go into a folder"):
        onnxfuse.map(encoder[1], lines, lines)
    with pytest.raises(UsageError, match=r"is where the input lies"):
        onnxfuse.map(encoder[1], lines, tmp_path)
    assert (tmp_path / "out" / "thesis.txt").read_text() == "x" and len(list(tmp_path.iterdir())) == 2


def test_two_runs_in_one_folder(encoder, lines, tmp_path):
    (tmp_path / "out").mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys,pathlib,time; from onnxfuse.io import locks; l = locks.take(pathlib.Path(sys.argv[1]))\n"
         "print('held', flush=True); time.sleep(60)", str(tmp_path / "out")],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="is in use by another run of onnxfuse; wait until it has ended"):
            onnxfuse.map(encoder[1], lines, tmp_path / "out")
    finally:
        holder.kill()
        holder.communicate()


def test_a_full_disk_keeps_the_parts_that_are_done(encoder, lines, tmp_path):
    """A file system of 40 KiB; the parts have 10 KB each."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("this user may not mount")
    try:
        with pytest.raises(StorageError) as caught:
            onnxfuse.map(encoder[1], lines, disk / "out", **SMALL)
        assert "No space left on device; make room or choose another folder; the parts that are done are kept" in str(
            caught.value
        )
        left = sorted(path.name for path in (disk / "out").iterdir())
        assert left[0] == "_onnxfuse.json" and 1 <= len(left[1:]) < 5 and all(name.startswith("part-") for name in left[1:])
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        again = onnxfuse.map(encoder[1], lines, disk / "out", **SMALL)
        assert again.before == 70 * len(left[1:]) and again.rows == 300
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_place_that_cannot_be_written(encoder, lines, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("this user may not mount")
    try:
        with pytest.raises(StorageError, match=r"cannot write .*out: Read-only file system; make room or choose another folder"):
            onnxfuse.map(encoder[1], lines, place / "out")
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


# What does not go ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"columns": ["nope"]}, "has no column 'nope'; choose with --column among text, key, more"),
        ({"id": "nope"}, "has no column 'nope'; choose with --id among text"),
        ({"keep": ["nope"]}, "has no column 'nope'; choose with --keep among text"),
        ({"keep": ["key", "key"]}, "--keep key: the result has a column of that name already"),
        ({"columns": ["text", "key"]}, "takes 1 different ones"),
        ({"engine": "spark"}, "no engine named 'spark'; choose one of local, ray"),
        ({"actors": 2}, "--actors 2 is of --engine ray"),
        ({"address": "here"}, "--address here is of --engine ray"),
        ({"part_rows": 0}, "part_rows is 0, wanted 1 to"),
        ({"batch_tokens": "4"}, "batch_tokens is '4', wanted a whole number"),
        ({"max_bad": 1.5}, "max_bad is 1.5, wanted how many rows may be bad, or a share"),
        ({"max_bad": -1}, "max_bad is -1"),
        ({"columns": "text"}, "columns is the text 'text', wanted a list of names"),
        ({"prompt_name": "nope"}, "there is no prompt named 'nope'"),
        ({"runtime": "nope"}, "no runtime named 'nope'"),
    ],
)
def test_wrong_options_are_one_line_and_leave_nothing(encoder, lines, tmp_path, given, said):
    with pytest.raises(UsageError) as caught:
        onnxfuse.map(encoder[1], lines, tmp_path / "out", **given)
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_prompt_of_a_model_that_has_none(made, lines, tmp_path):
    folder = made("bert", "BertForSequenceClassification", id2label={0: "good", 1: "bad", 2: "so so"})[1]
    with pytest.raises(UsageError, match=r"--prompt-name query: .* is used without prompts; leave it out"):
        onnxfuse.map(folder, lines, tmp_path / "out", prompt_name="query")


def test_a_run_that_came_to_nothing_binds_nobody(encoder, lines, tmp_path):
    """Its model was broken; mended, the same command begins anew."""
    model = shutil.copytree(encoder[1], tmp_path / "model")
    whole = (model / "tokenizer.json").read_bytes()
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError):
        onnxfuse.map(model, lines, tmp_path / "out", **SMALL)
    (model / "tokenizer.json").write_bytes(whole)
    assert onnxfuse.map(model, lines, tmp_path / "out", **SMALL).rows == 300


def test_models_that_are_for_something_else(made, encoder, lines, tmp_path):
    vit = made("vit", "ViTForImageClassification", num_labels=5)[1]
    with pytest.raises(UsageError, match=r"takes images, and .* holds none; give it images"):
        onnxfuse.map(vit, lines, tmp_path / "out")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"takes texts, and .* holds images; give it texts"):
        onnxfuse.map(encoder[1], tmp_path / "a.png", tmp_path / "out")
    masked = made("bert", "BertForMaskedLM")[1]
    with pytest.raises(UsageError, match=r"was exported for fill-mask; map is for .*: export it with --task"):
        onnxfuse.map(masked, lines, tmp_path / "out")
    (tmp_path / "none.jsonl").write_text("\n")
    with pytest.raises(UsageError, match=r"no column 'text'|holds no rows"):
        onnxfuse.map(encoder[1], tmp_path / "none.jsonl", tmp_path / "out")
    (tmp_path / "two.csv").write_text("a,b\nx,y\n")
    with pytest.raises(UsageError, match=r"two\.csv has no column 'text'; choose with --column among a, b"):
        onnxfuse.map(encoder[1], tmp_path / "two.csv", tmp_path / "out")


def test_progress_and_what_is_printed(encoder, lines, cli, tmp_path):
    told = []
    onnxfuse.map(encoder[1], lines, tmp_path / "a", progress=lambda *given: told.append(given), **SMALL)
    steps = [given for given in told if given[0] == "mapping"]
    assert [round(given[1], 2) for given in steps] == sorted(round(given[1], 2) for given in steps) and steps[-1][1] == 1
    assert steps[-1][2].startswith("300 rows, ") and "rows a second" in steps[0][2] and steps[-1][2].endswith(" 0 s left")
    result = cli("map", encoder[1], "--input", lines, "-o", "out", "--part-rows", "100")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("out: 300 rows in 3 parts\n") and "reading and tokenizing beside it took" in result.stdout
    again = cli("map", encoder[1], "--input", lines, "-o", "out", "--part-rows", "100")
    assert again.stdout == "out: 300 rows in 3 parts\n  300 of them were there\n"
    assert os.listdir(tmp_path / "out")


def test_a_link_as_output_is_followed(encoder, lines, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert onnxfuse.map(encoder[1], lines, tmp_path / "link").path == tmp_path / "real"
    assert onnxfuse.map(encoder[1], lines, tmp_path / "real").made == 0
    (tmp_path / "lost").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"lost is a link, and .*nowhere is no folder; make it, or choose another with --output"):
        onnxfuse.map(encoder[1], lines, tmp_path / "lost")


def test_a_finished_folder_needs_no_writing(encoder, lines, tmp_path):
    """A file system that is read-only by then: the folder is complete, and what is begun there says that it cannot be written."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    try:
        onnxfuse.map(encoder[1], lines, place / "out")
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)
        again = onnxfuse.map(encoder[1], lines, place / "out")
        assert (again.rows, again.made) == (len(TEXTS), 0)
        with pytest.raises(StorageError, match=r"cannot write .*other: Read-only file system"):
            onnxfuse.map(encoder[1], lines, place / "other")
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_part_of_others_is_named(encoder, lines, tmp_path):
    """The folder is read as one table."""
    onnxfuse.map(encoder[1], lines, tmp_path / "out")
    shutil.copy(tmp_path / "out" / "part-000000.parquet", tmp_path / "out" / "part-000099.parquet")
    with pytest.raises(UsageError, match=r"out holds part-000099\.parquet, which is no part of this; take it away"):
        onnxfuse.map(encoder[1], lines, tmp_path / "out")


def test_a_table_without_a_line(encoder, tmp_path):
    (tmp_path / "a.csv").write_text("")
    with pytest.raises(UsageError, match="has no column 'text'; it names none"):
        onnxfuse.map(encoder[1], tmp_path / "a.csv", tmp_path / "out")

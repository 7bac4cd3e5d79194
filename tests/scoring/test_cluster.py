"""Rows that are spread over a cluster give the figures of one process."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

import onnxfuse
from onnxfuse.errors import UsageError
from tests.cli.test_cli import expect_one_line
from tests.nodes import cluster  # noqa: F401 - a fixture
from tests.scoring.test_long import table

pytest.importorskip("ray", reason="the extra ray is not installed")

ROWS = 9_000


@pytest.fixture(scope="module")
def two(made, tmp_path_factory):
    """A classifier with its optimized form, and labelled rows of five parts."""
    _, source = made("bert", "BertForSequenceClassification", ["no", "yes"])
    folder = tmp_path_factory.mktemp("two")
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    onnxfuse.optimize(folder)
    return folder, table(folder / "rows.csv", ROWS)


def command(folder, data, *more):
    models = [str(folder / name) for name in ("model.onnx", "model_optimized.onnx")]
    return [
        sys.executable,
        "-m",
        "onnxfuse",
        "evaluate",
        *models,
        "--data",
        str(data),
        *["--rounds", "1", "--threads", "1"],
        *more,
    ]


def judged(run):
    """The figures of quality, of each model; rows are summed up in another order, so that a mean differs in its last digits."""
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)["results"]
    cosines = [each.pop("cosine") for each in found]
    return [{name: each[name] for name in ("metrics", "agreement", "count", "p_value")} for each in found], cosines


def test_two_nodes_judge_as_one_process(two, cluster):  # noqa: F811
    here = judged(subprocess.run(command(*two, "--json"), capture_output=True, text=True))
    there = judged(
        subprocess.run(
            command(*two, "--json", "--engine", "ray", "--address", cluster.address, "--actors", "2"),
            capture_output=True,
            text=True,
        )
    )
    assert there[0] == here[0] and here[0][0]["count"] == ROWS
    assert there[1] == pytest.approx(here[1], rel=1e-12)


def test_an_actor_that_dies_loses_no_row(two, cluster):  # noqa: F811
    """Killed as soon as it is there, whatever it does then."""
    run = subprocess.Popen(
        command(*two, "--json", "--engine", "ray", "--address", cluster.address), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    until, killed = time.monotonic() + 120, 0
    while not killed:
        assert time.monotonic() < until and run.poll() is None
        found = subprocess.run(["pgrep", "-f", "ray::.*MapWorker|ray::.*MapBatches"], capture_output=True, text=True).stdout
        for number in found.split()[:1]:
            os.kill(int(number), signal.SIGKILL)
            killed = int(number)
        time.sleep(0.05)
    out, err = run.communicate(timeout=300)
    assert run.returncode == 0, err
    assert [each["count"] for each in json.loads(out)["results"]] == [ROWS, ROWS]


def test_one_machine_names_the_row_that_is_wrong(two, tmp_path):
    """A row of the third part: its number is that among all rows."""
    folder, rows = two
    lines = rows.read_text().splitlines()
    lines[5_000] = "a text,maybe"
    bad = tmp_path / "bad.csv"
    bad.write_text("\n".join(lines) + "\n")
    expect_one_line(
        subprocess.run(command(folder, bad, "--engine", "ray"), capture_output=True, text=True),
        UsageError.exit_code,
        "row 5000 has the label 'maybe'",
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"address": "127.0.0.1:6379"}, "--address 127.0.0.1:6379 is of --engine ray; add that"),
        ({"actors": 2}, "--actors 2 is of --engine ray; add that"),
        ({"engine": "spark"}, "no engine named 'spark'; choose one of local, ray"),
        ({"engine": "ray", "ablate": True}, "--engine ray answers with files alone, and --ablate is done here"),
        ({"engine": "ray", "against": ["torch"]}, "--engine ray answers with files alone, and --against is done here"),
        ({"engine": "ray", "actors": 2000}, "2000 actors of 1 threads are asked for"),
        ({"engine": "ray", "address": "127.0.0.1:1"}, "--address 127.0.0.1:1: no cluster of Ray can be reached"),
    ],
)
def test_what_cannot_be_spread_is_refused(two, options, said):
    with pytest.raises(UsageError, match=said):
        onnxfuse.evaluate(two[0] / "model.onnx", two[1], rounds=1, threads=1, **options)


def test_texts_without_labels_are_not_spread(two, tmp_path):
    (tmp_path / "texts.txt").write_text("a text\n")
    with pytest.raises(UsageError, match="--engine ray is for labelled rows"):
        onnxfuse.evaluate(two[0] / "model.onnx", tmp_path / "texts.txt", engine="ray")

"""Ray makes the parts that this process makes, also when actors, nodes and the driver are killed."""

import json
import os
import pickle
import random
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import onnxfuse
from onnxfuse import cluster as clusters
from onnxfuse.bulk import parts
from onnxfuse.cluster import Driver
from onnxfuse.errors import ModelError, StorageError, UsageError
from tests.bulk.conftest import TEXTS
from tests.bulk.test_map import bad, files
from tests.cli.test_cli import expect_one_line
from tests.nodes import cluster  # noqa: F401 - a fixture

ray = pytest.importorskip("ray", reason="the extra ray is not installed")

ROWS = 40 * len(TEXTS)
OPTIONS = {"part_rows": 500, "batch_tokens": 200, "max_bad": 1}
COMMAND = ("--part-rows", "500", "--batch-tokens", "200", "--max-bad", "1", "--engine", "ray", "--threads", "1")
TWO = ("--actors", "2")


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """12,000 texts, and a row that is none."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": f"{text} {at}"}) + "\n" for at in range(40) for text in TEXTS) + '{"text": 1}\n')
    return path


@pytest.fixture(scope="module")
def whole(encoder, many, tmp_path_factory):
    """What this process makes of them."""
    folder = tmp_path_factory.mktemp("local") / "out"
    onnxfuse.map(encoder[1], many, folder, **OPTIONS)
    return files(folder)


def command(encoder, many, out, *more):
    return [sys.executable, "-m", "onnxfuse", "map", str(encoder[1]), "--input", str(many), "-o", str(out), *COMMAND, *more]


def waiting_for(out, count):
    """Until so many parts are there."""
    until = time.monotonic() + 120
    while len(list(out.glob("part-*"))) < count:
        assert time.monotonic() < until, "no part came"
        time.sleep(0.05)


def test_one_machine_without_a_cluster(encoder, many, whole, tmp_path):
    run = subprocess.run(command(encoder, many, tmp_path / "out"), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(f"{tmp_path / 'out'}: {ROWS:,} rows in 25 parts\n")
    assert files(tmp_path / "out") == whole and [row["row"] for row in bad(tmp_path / "out")] == [ROWS]
    assert all(line.startswith("  ") for line in run.stderr.splitlines()), run.stderr  # progress, and nothing of Ray's


def test_one_machine_where_a_cluster_of_others_runs(encoder, many, whole, cluster, tmp_path):  # noqa: F811
    """It is left alone: nobody named it, though Ray itself would take the one that was started last."""
    run = subprocess.run(command(encoder, many, tmp_path / "out"), capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert files(tmp_path / "out") == whole


def moments(seed):
    """Five: after how many parts, and how long after the last of them."""
    pick = random.Random(seed)
    return [(count, 0.2 * pick.random()) for count in sorted(pick.sample(range(18), 5))]


def running(line):
    return subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def require_whole(run, out, whole):
    _, said = run.communicate(timeout=300)
    assert run.returncode == 0, said.decode()
    assert files(out) == whole


def test_a_node_is_killed_five_times(encoder, many, whole, cluster, tmp_path):  # noqa: F811
    """One of two, each time; another comes."""
    out = tmp_path / "out"
    run = running(command(encoder, many, out, "--address", cluster.address, *TWO))
    for count, wait in moments(1):
        waiting_for(out, count)
        time.sleep(wait)
        cluster.remove_node(cluster.nodes.pop(0), allow_graceful=False)
        cluster.nodes.append(cluster.add_node(num_cpus=1))
    assert run.poll() is None
    require_whole(run, out, whole)


def actors():
    """The processes of actors on this machine."""
    found = subprocess.run(["pgrep", "-f", "ray::.*MapWorker|ray::.*MapBatches"], capture_output=True, text=True).stdout
    return [int(number) for number in found.split()]


def test_an_actor_is_killed_five_times(encoder, many, whole, cluster, tmp_path):  # noqa: F811
    out, pick = tmp_path / "out", random.Random(2)
    run = running(command(encoder, many, out, "--address", cluster.address, *TWO))
    for count, wait in moments(2):
        waiting_for(out, count)
        time.sleep(wait)
        while not (living := actors()):
            time.sleep(0.1)  # those that were killed come again
        os.kill(pick.choice(living), signal.SIGKILL)
    assert run.poll() is None
    require_whole(run, out, whole)


def test_the_driver_is_killed_five_times(encoder, many, whole, cluster, tmp_path):  # noqa: F811
    """The same command goes on each time."""
    out = tmp_path / "out"
    line = command(encoder, many, out, "--address", cluster.address, *TWO)
    for count, wait in moments(3):
        run = running(line)
        waiting_for(out, count)
        time.sleep(wait)
        run.kill()
        run.communicate()
    again = subprocess.run(line, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "of them were there" in again.stdout and files(out) == whole


def driver_of(run):
    """The process that is connected to Ray for a run."""
    found = subprocess.run(["pgrep", "-P", str(run.pid), "-f", "onnxfuse.cluster.driver"], capture_output=True, text=True).stdout
    (number,) = found.split()
    return int(number)


def last_line(run):
    _, said = run.communicate(timeout=60)
    (line,) = [line for line in said.decode().splitlines() if not line.startswith("  ")]
    return line


def test_a_cluster_that_dies_is_one_line_and_keeps_what_is_done(encoder, many, whole, cluster, tmp_path):  # noqa: F811
    """Ray ends the process that is connected to it: that is not ours, and what it was is told."""
    out = tmp_path / "out"
    run = running(command(encoder, many, out, "--address", cluster.address, *TWO))
    waiting_for(out, 3)
    os.kill(driver_of(run), signal.SIGKILL)
    line = last_line(run)
    assert run.returncode == StorageError.exit_code
    assert line.startswith("onnxfuse: Ray's driver has ended") and line.endswith("run the same command again")
    onnxfuse.map(encoder[1], many, out, **OPTIONS)
    assert files(out) == whole


def test_an_answer_that_breaks_off_is_the_drivers_end():
    """It may die while it writes one."""
    whole = pickle.dumps(("answer", "x" * 100_000))
    script = f"import sys; sys.stdin.buffer.read(1); sys.stdout.buffer.write(open({{!r}}, 'rb').read({len(whole) // 2}))"
    with tempfile.NamedTemporaryFile() as file:
        file.write(whole)
        file.flush()
        command = [sys.executable, "-c", script.format(file.name)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            with pytest.raises(StorageError, match="Ray's driver has ended"):
                list(Driver(process).ask("spread", None))
            process.kill()


def test_sigterm_ends_it_as_without_ray(encoder, many, tmp_path):
    """Ray, which would end the process itself, is in another one; that ends, too."""
    out = tmp_path / "out"
    run = running(command(encoder, many, out))
    waiting_for(out, 2)
    driver = driver_of(run)
    run.terminate()
    assert last_line(run).startswith("onnxfuse: interrupted; the parts that are done are kept")
    assert run.returncode == 143 and len(list(out.glob("part-*"))) >= 2
    assert not list(out.glob(f"{parts.UNFINISHED}*"))  # of actors, which could not remove them
    assert not Path(f"/proc/{driver}").exists()


def test_interrupted_before_a_part_is_done_nothing_is_said_to_be_kept(encoder, many, tmp_path):
    run = running([*command(encoder, many, tmp_path / "out"), "--json"])
    while not (tmp_path / "out" / "_onnxfuse.json").is_file():  # then Ray starts, which takes seconds
        assert run.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)
    run.terminate()
    assert last_line(run).startswith("onnxfuse: interrupted; no part is done yet, and the same command begins again")
    assert run.returncode == 143 and not list((tmp_path / "out").glob("part-*"))


def test_a_busy_cluster_is_waited_for_and_that_is_told(encoder, many, whole, cluster, tmp_path):  # noqa: F811
    """Somebody has both cores, and gives them back."""
    holder = """
import sys, time, ray
ray.init(sys.argv[1])
@ray.remote(num_cpus=1)
def hold():
    time.sleep(15)
held = [hold.remote() for _ in range(2)]
while ray.available_resources().get("CPU", 0):
    time.sleep(0.1)
print("held", flush=True)
ray.get(held)
"""
    with subprocess.Popen(
        [sys.executable, "-c", holder, cluster.address], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as other:
        assert other.stdout.readline() == b"held\n"
        run = running(command(encoder, many, tmp_path / "out", "--address", cluster.address, *TWO))
        _, said = run.communicate(timeout=120)
    assert run.returncode == 0, said.decode()
    assert "  waiting for the cluster: 0 of its 2 cores are free, and an actor takes 1" in said.decode()
    assert files(tmp_path / "out") == whole


def test_errors_of_actors_are_one_line(encoder, many, tmp_path):
    broken = tmp_path / "model"
    broken.mkdir()
    for path in encoder[1].iterdir():
        if path.is_file():
            (broken / path.name).write_bytes(path.read_bytes())
    (broken / "tokenizer.json").write_text("{}")
    run = subprocess.run(command((None, broken), many, tmp_path / "out"), capture_output=True, text=True)
    expect_one_line(run, ModelError.exit_code, "tokenizer.json cannot be read as a tokenizer")
    assert not list((tmp_path / "out").glob("part-*")) and not list((tmp_path / "out").glob(f"{parts.UNFINISHED}*"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--actors", "2000"), "2000 actors of 1 threads are asked for, and nodes of"),
        (("--address", "127.0.0.1:1"), "--address 127.0.0.1:1: no cluster of Ray can be reached"),
    ],
)
def test_a_cluster_that_is_not_there_or_too_small(encoder, many, tmp_path, given, said):
    run = subprocess.run(command(encoder, many, tmp_path / "out", *given), capture_output=True, text=True)
    expect_one_line(run, UsageError.exit_code, said)


@pytest.mark.parametrize(
    ("address", "step"),
    [
        ("nonsense", "give HOST:PORT"),
        ("127.0.0.1:99999", "give HOST:PORT"),
        ("http://127.0.0.1:9", "give HOST:PORT"),
        ("127.0.0.1:1", "is the cluster started"),
    ],
)
def test_what_to_do_about_an_address(encoder, many, tmp_path, address, step):
    run = subprocess.run(command(encoder, many, tmp_path / "out", "--address", address), capture_output=True, text=True)
    expect_one_line(run, UsageError.exit_code, f"--address {address}: no cluster of Ray can be reached")
    assert step in run.stderr and "token" not in run.stderr


def test_the_environment_names_a_cluster_that_is_not_there(encoder, many, tmp_path):
    given = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    run = subprocess.run(command(encoder, many, tmp_path / "out"), capture_output=True, text=True, env=given)
    expect_one_line(run, UsageError.exit_code, "the environment's RAY_ADDRESS=127.0.0.1:1: no cluster of Ray can be reached")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_something_else_listens_at_an_address(encoder, many, tmp_path, monkeypatch, answer):
    """Ray would wait for it without end."""
    monkeypatch.setattr(clusters, "CONNECTING", 8.0)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answering) as server:
        server.answer, server.daemon_threads = answer, True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address, said = f"127.0.0.1:{server.server_address[1]}", []
        with pytest.raises(
            UsageError, match=rf"--address {address}: .*something listens, and gives no answer of Ray's within 8 s"
        ):
            onnxfuse.map(
                encoder[1],
                many,
                tmp_path / "out",
                engine="ray",
                address=address,
                progress=lambda text, *_: said.append(text),
                **OPTIONS,
            )
        server.shutdown()
    assert f"connecting to --address {address}" in said


class Answering(socketserver.BaseRequestHandler):
    """Says one thing, then nothing more."""

    def handle(self):
        if self.server.answer:
            self.request.recv(1 << 10)
            self.request.sendall(self.server.answer)
        while self.request.recv(1 << 10):
            pass


def test_an_input_that_changes_meanwhile_ends_the_run(encoder, lines, tmp_path):
    """Also where actors read it."""

    def meddle(step, *told):
        if step == "mapping":
            lines.write_text(lines.read_text() + '{"text": "more"}\n')

    options = {"part_rows": 70, "batch_tokens": 200}
    with pytest.raises(UsageError, match=r"rows\.jsonl changed while it was read: .* choose a new folder with --output"):
        onnxfuse.map(encoder[1], lines, tmp_path / "out", engine="ray", actors=1, threads=1, progress=meddle, **options)
    assert json.loads((tmp_path / "out" / "_onnxfuse.json").read_text())["done"] is None
    with pytest.raises(UsageError, match="was begun with other input"):
        onnxfuse.map(encoder[1], lines, tmp_path / "out", engine="ray", actors=1, threads=1, **options)


def test_a_finished_job_needs_no_cluster(encoder, many, tmp_path):
    onnxfuse.map(encoder[1], many, tmp_path / "out", **OPTIONS)
    again = onnxfuse.map(encoder[1], many, tmp_path / "out", engine="ray", address="127.0.0.1:1", **OPTIONS)
    assert again.made == 0 and again.rows == ROWS and not ray.is_initialized()

"""Models that would not end, take all memory or kill the process are refused by a process that dies for it."""

import subprocess

import onnx
import onnx.parser
import pytest

from onnxfuse.errors import ModelError
from onnxfuse.io import screen
from onnxfuse.pipeline.explain import explain_file
from onnxfuse.runtime import open_session, trial
from onnxfuse.verify.opened import Opened
from tests.conftest import HEADER

X = "g (int64[B,S] x) => (int64[N] y)"


@pytest.fixture
def written(tmp_path):
    def write(text, name="a.onnx"):
        (tmp_path / name).write_bytes(onnx.parser.parse_model(HEADER.format(opset=20) + X + text).SerializeToString())
        return tmp_path / name

    return write


FOREVER = "{ t = Constant <value_int = 1000000000000> ()  e = Constant <value = bool {1}> ()  s = Constant <value_ints = [1]> ()  y = Loop (t, e, s) <body = b (int64 i, bool k, int64[1] v) => (bool k2, int64[1] v2) { k2 = Identity (k)  v2 = Neg (v) }> }"
DIES = "<int64 low = {-9223372036854775808}, int64 by = {-1}> { a = Mul (x, low)  b = Div (a, by)  m = Constant <value_ints = [-1]> ()  y = Reshape (b, m) }"
LARGE = "<int64[2] s = {100000, 100000}> { y = ConstantOfShape <value = int64[1] {1}> (s) }"
FINE = "{ t = Constant <value_int = 3> ()  e = Constant <value = bool {1}> ()  s = Constant <value_ints = [1]> ()  y = Loop (t, e, s) <body = b (int64 i, bool k, int64[1] v) => (bool k2, int64[1] v2) { k2 = Identity (k)  v2 = Neg (v) }> }"


@pytest.mark.parametrize(
    "text, words",
    [
        (FOREVER, r"does not end within 1 seconds .*\(it has Loop\)"),
        (DIES, r"kills its process \(SIGFPE\)"),
        (LARGE, r"takes more than \d+ MiB"),
    ],
)
def test_harm_is_named_before_the_model_is_opened_here(written, monkeypatch, text, words):
    monkeypatch.setattr(trial, "SECONDS", 1.4 if text is FOREVER else 15.0)
    path = written(text)
    for use in (lambda: open_session(path), lambda: Opened(path).model, lambda: explain_file(path)):
        with pytest.raises(ModelError, match=words):
            use()


def test_what_ends_well_passes_and_what_is_refused_in_words_is_left_to_who_opens_it(written):
    trial.require_harmless(written(FINE))
    bad = written("{ y = Loop (x) <body = b (int64 i) => (int64 o) { o = Identity (i) }> }", "bad.onnx")
    assert screen.suspicion(onnx.load(bad))
    trial.require_harmless(bad)
    with pytest.raises(ModelError, match="cannot open"):
        open_session(bad)


def test_a_file_is_tried_once_and_again_when_it_changed(written, monkeypatch):
    started = []
    start = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: started.append(args) or start(*args, **options))
    path = written(FINE)
    for _ in range(3):
        trial.require_harmless(path)
    assert len(started) == 1
    trial.require_harmless(written(FINE.replace("= 3>", "= 44>")))
    assert len(started) == 2
    trial.require_harmless(written("{ m = Constant <value_ints = [-1]> ()  y = Reshape (x, m) }", "plain.onnx"))
    assert len(started) == 2


def test_what_this_process_wrote_needs_no_trial_until_it_changes(written, monkeypatch):
    path = written(FINE)
    trial.trust(path)
    monkeypatch.setattr(trial, "_harm", lambda *found: "does harm")
    trial.require_harmless(path)
    written(FINE.replace("= 3>", "= 44>"))
    with pytest.raises(ModelError, match="does harm"):
        trial.require_harmless(path)

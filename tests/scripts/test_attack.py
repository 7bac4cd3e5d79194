"""The judge of ``scripts/attack.py``: each way to end badly is told from the others, and from ending well."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "scripts"))
from attacks import child
from attacks.child import SECRET, Case, attempt


def leave(code, text=""):
    sys.stderr.write(text)
    raise SystemExit(code)


def fail():
    raise ValueError("raw")


def hold():
    kept = np.ones(100 << 20, np.uint8)
    time.sleep(100)
    return kept


def copy():
    Path("made").write_bytes(Path("../outside/there").read_bytes())
    leave(3, "onnxfuse: refused\n")


ENDS = {
    "done": lambda: leave(0, "  a phase\n"),
    "refused": lambda: leave(3, "  a phase\nonnxfuse: no\n"),
    "traceback": fail,
    "lines": lambda: leave(3, "onnxfuse: no\nand no\n"),
    "code": lambda: leave(1, "onnxfuse: no\n"),
    "hang": lambda: time.sleep(100),
    "memory": hold,
    "signal": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "outside read": lambda: Path("../outside/there").read_bytes(),
    "outside write": lambda: Path("../outside/new").touch(),
    "differs": lambda: leave(child.DIFFERS, "one and another"),
}


def attack(folder, work, **options):
    def build(room):
        (room.outside / "there").write_bytes(SECRET)
        return work

    return attempt(Case("part", "name", "verb", build, **options), folder / "case", lambda _: None)


@pytest.mark.parametrize("wanted", ENDS)
def test_each_end_is_told_from_the_others(tmp_path, monkeypatch, wanted):
    if wanted in ("hang", "memory"):
        monkeypatch.setattr(child, "SECONDS", 0.3 if wanted == "hang" else 100.0)
        monkeypatch.setattr(child, "BYTES", 50 << 20)
    outcome = attack(tmp_path, ENDS[wanted])
    assert outcome.kind == wanted and outcome.bad == (wanted not in ("done", "refused"))
    assert not (tmp_path / "case").exists()


def test_a_secret_that_was_copied_is_an_outside_read_whatever_the_code(tmp_path):
    assert attack(tmp_path, copy).kind == "outside read"


def test_opening_alone_is_counted_and_an_allowed_read_is_none(tmp_path):
    def look():
        Path("../outside/there").read_bytes()
        leave(3, "onnxfuse: no\n")

    assert (outcome := attack(tmp_path, look)).kind == "refused" and outcome.opened == ("there",)
    assert attack(tmp_path, ENDS["outside read"], allowed=True).kind == "done"
    assert attack(tmp_path, ENDS["done"], refuse=True).kind == "outside read"


def test_silence_is_no_refusal(tmp_path):
    assert attack(tmp_path, lambda: leave(3)).kind == "lines"

"""``scripts/faults.py`` finds what it looks for: a run that is killed everywhere loses nothing, and one that renames badly does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")]


def faults(*arguments):
    command = [sys.executable, ROOT / "scripts" / "faults.py", "--only", "optimize", "--json", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.returncode, json.loads(result.stdout)["optimize"], result.stderr


def test_nothing_is_lost():
    code, counts, said = faults("--every", "5")
    assert code == 0, said
    assert counts["tried"] > 40


def test_it_notices_what_is_lost(tmp_path):
    """With a library in which the renames of a folder stand alone: no second names, no note."""
    broken = tmp_path / "repo"
    for name in ("onnxfuse", "scripts", "fusions", "models"):
        shutil.copytree(ROOT / name, broken / name, symlinks=name != "onnxfuse")
    file = broken / "onnxfuse" / "io" / "commit.py"
    text = file.read_text()
    assert "    moves.note()\n" in text
    file.write_text(text.replace("    moves.note()\n", ""))
    command = [sys.executable, broken / "scripts" / "faults.py", "--only", "optimize", "--json", "--kinds", "kill"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stderr
    assert json.loads(result.stdout)["optimize"]["mixed"] == 1

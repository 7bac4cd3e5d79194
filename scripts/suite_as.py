"""Run the fast tests with another target's choices in place of target cpu's. ``python scripts/suite_as.py native``

What git lists of this folder is copied into a temporary one, with the library of our kernels; there cpu.json gets the
other target's choices under cpu's name, so that every test and command that asks for no target takes them. Tests that are about
what cpu is shipped with say so by a mark of ``tests/marks.py``, and are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
LINKED = ("fusions", "models")
"""Found inside the package by a link, as an editable install finds them by pyproject.toml."""


def copy(folder: Path, target: str) -> None:
    """Put this clone into a folder, with cpu.json as the target has it but for its name and what tune measured."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        to = folder / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, to)
    for name in LINKED:
        (folder / "onnxfuse" / name).symlink_to(Path("..") / name)
    shutil.copy2(ROOT / "onnxfuse" / "native" / "libonnxfuse.so", folder / "onnxfuse" / "native")
    targets = folder / "onnxfuse" / "targets"
    cpu, other = (json.loads((targets / f"{name}.json").read_text(encoding="utf-8")) for name in ("cpu", target))
    put = other | {"name": "cpu", "measured": cpu["measured"]}
    (targets / "cpu.json").write_text(json.dumps(put, indent=2) + "\n", encoding="utf-8")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)  # ruff and some tests look for a clone


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target")
    parser.add_argument("pytest", nargs="*", help="instead of: -m 'not slow' -n 2")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy(Path(folder), arguments.target)
        asked = arguments.pytest or ["-m", "not slow", "-n", "2"]
        environment = os.environ | {"PYTHONPATH": folder}
        return subprocess.run([sys.executable, "-m", "pytest", *asked], cwd=folder, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())

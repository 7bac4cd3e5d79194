"""Print the oldest version of everything that pyproject.toml lets a user install, as constraints for pip.

    python scripts/floors.py > floors.txt
    pip install --constraint floors.txt --editable '.[torch]'

``make test-oldest`` tests with them. What is pinned to one version has no floor.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"

TESTED = ("", "torch", "eval", "openvino", "plot", "view")
"""The extras whose floors hold together in one environment; "" is onnxfuse itself."""


def floors() -> dict[str, str]:
    """The lowest version of each package that may be installed."""
    project = tomllib.loads(PROJECT.read_text())["project"]
    wanted = {"": project["dependencies"], **project["optional-dependencies"]}
    found = (re.match(r"([\w.-]+)>=([\w.]+)", text) for name in TESTED for text in wanted[name])
    return {match[1]: match[2] for match in found if match}


def main() -> int:
    for name, version in floors().items():
        print(f"{name}=={version}")  # noqa: T201 - a program's result
    return 0


if __name__ == "__main__":
    sys.exit(main())

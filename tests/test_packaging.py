"""The wheel holds ``onnxfuse/`` alone, and every package in the tree."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from onnxfuse.io.folders import RECORDED

ROOT = Path(__file__).parent.parent


def test_the_package_list_is_the_tree():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in (ROOT / "onnxfuse").rglob("__init__.py")}
    mapped = {f"onnxfuse.{name}" for name in ("fusions", "models") if (ROOT / name / "__init__.py").is_file()}
    assert listed == found | mapped


def test_the_wheel_holds_onnxfuse_alone(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"onnxfuse"}
    assert {"onnxfuse/fusions/attention.py", "onnxfuse/models/bert.py", "onnxfuse/py.typed"} <= set(names)


def test_rules_and_families_know_the_engine_alone():
    """In a clone they lie beside the package, where import-linter does not see them."""
    for path in [*(ROOT / "fusions").glob("*.py"), *(ROOT / "models").glob("*.py")]:
        for line in path.read_text().splitlines():
            if line.startswith("from onnxfuse"):
                assert line.split()[1].startswith(
                    ("onnxfuse.rewrite", "onnxfuse.fusions", "onnxfuse.models", "onnxfuse.architecture")
                )


def test_the_readme_names_no_version_by_hand():
    """What is tested is what installs; tables that a script writes name the versions of their run."""
    text = re.sub(r"<!-- coverage.*?<!-- end of coverage -->", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert not re.findall(rf"\b(?:{'|'.join(RECORDED)})\b[\s=v<>]*\d+\.\d+(?![.\d]* times)", text, flags=re.IGNORECASE)


def test_ci_runs_what_the_readme_tells_newcomers_to():
    first = re.findall(r"^    make ([a-z-]+)", (ROOT / "README.md").read_text().partition("## Commands")[0], flags=re.MULTILINE)
    assert first == ["demo", "test", "test-tf"]
    assert set(first) <= set(re.findall(r"^make (.*)$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)[0].split())

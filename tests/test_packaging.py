"""The wheel holds ``onnxfuse/`` alone, and every package in the tree."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

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
                    ("onnxfuse.rewrite", "onnxfuse.native", "onnxfuse.fusions", "onnxfuse.models", "onnxfuse.architecture")
                )


def test_the_readme_names_no_version_by_hand():
    """What is tested is what installs; tables that a script writes name the versions of their run."""
    text = re.sub(r"<!-- coverage.*?<!-- end of coverage -->", "", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert not re.findall(rf"\b(?:{'|'.join(RECORDED)})\b[\s=v<>]*\d+\.\d+(?![.\d]* times)", text, flags=re.IGNORECASE)


def test_ci_runs_what_the_readme_tells_newcomers_to():
    first = re.findall(r"^make ([a-z-]+)", (ROOT / "README.md").read_text().partition("## Commands")[0], flags=re.MULTILINE)
    assert first == ["demo", "test", "test-tf"]
    assert set(first) <= set(re.findall(r"^make (.*)$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)[0].split())


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), flags=re.MULTILINE))


def required(*extras: str) -> list[Requirement]:
    """What onnxfuse and some of its extras install, other extras of its own included."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    for extra in extras:
        for each in map(Requirement, PROJECT["optional-dependencies"][extra]):
            found += required(*each.extras) if each.name == "onnxfuse" else [each]
    return found


def test_ci_installs_the_lock_file():
    assert "make LOCKED=1 " in (ROOT / ".ci" / "run").read_text()
    text = (ROOT / "Makefile").read_text()
    assert "--require-hashes --requirement requirements.lock" in text.partition("ifdef LOCKED")[2].partition("else")[0]


def test_the_lock_file_has_what_developers_install_and_no_place_that_it_comes_from():
    assert "://" not in (ROOT / "requirements.lock").read_text()
    for each in required("dev"):
        if each.name != "torch":  # another file on each kind of machine: pinned in the Makefile
            assert each.specifier.contains(LOCKED[each.name]), each
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", (ROOT / "requirements.lock").read_text())) > len(LOCKED)


TESTED = ("torch", "eval", "openvino", "plot", "view")


def test_the_oldest_versions_are_those_of_pyproject():
    printed = subprocess.run([sys.executable, ROOT / "scripts" / "floors.py"], check=True, capture_output=True, text=True).stdout
    assert {line.partition("==")[0] for line in printed.splitlines()} == {each.name for each in required(*TESTED)}
    for name, version in (line.split("==") for line in printed.splitlines()):
        assert all(each.specifier.contains(version) for each in required(*TESTED) if each.name == name)


def test_each_dependency_has_its_reason():
    """docs/dependencies.md names every package with its bounds."""
    rows = [line for line in (ROOT / "docs" / "dependencies.md").read_text().splitlines() if line.startswith("|")]
    for text in [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]:
        each = Requirement(text)
        bounds = ", ".join(part for part in re.sub(r"\[.*?\]", "", text.removeprefix(each.name)).split(",") if part)
        assert each.name == "onnxfuse" or any(each.name in row and (bounds in row or "pinned" in row) for row in rows), text

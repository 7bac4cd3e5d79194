"""What continuous integration reads of a run: JUnit XML, and GitHub's annotations."""

from xml.etree import ElementTree

import onnx
import pytest

from onnxfuse.cli import ci
from onnxfuse.errors import ModelError, RequirementError, UsageError


def read(path) -> dict[str, str | None]:
    """The cases of a report, each with its failure; what the suite counts is what it holds."""
    suite = ElementTree.parse(path).getroot().find("testsuite")
    cases = {case.get("name"): case for case in suite.iter("testcase")}
    failures = {
        name: None if case.find("failure") is None else case.find("failure").get("message") for name, case in cases.items()
    }
    assert int(suite.get("tests")) == len(cases)
    assert int(suite.get("failures")) == sum(why is not None for why in failures.values())
    assert {case.get("classname") for case in cases.values()} == {suite.get("name").replace(" ", ".")}
    return failures


def test_requirements_are_cases(cli, bert_export, tmp_path):
    source = bert_export / "export"
    needs = ["--require", "attention=12", "--require", "gelu=2", "--require", "qkv=7"]
    result = cli("optimize", source, "-o", tmp_path, *needs, "--junit", "a.xml")
    assert result.returncode == 6
    cases = read(tmp_path / "a.xml")
    assert cases["gelu=2"] is None
    assert cases["attention=12"].startswith("attention fused 2 times, required 12")
    assert cases["qkv=7"].startswith("qkv fused 2 times, required 7")
    assert result.stderr.splitlines()[-1] == f"onnxfuse: {cases['attention=12']}"
    assert [path.name for path in tmp_path.iterdir()] == ["a.xml"]
    result = cli("optimize", source, "-o", tmp_path, "--require", "all", "--verify", "off", "--junit", "a.xml")
    assert result.returncode == 0, result.stderr
    assert read(tmp_path / "a.xml") == dict.fromkeys(["attention=2", "gelu=2", "layer_norm=5", "qkv=2"])


def test_outputs_are_cases_of_check(cli, bert_export, tmp_path):
    source = bert_export / "export" / "model.onnx"
    model = onnx.load(source)
    bias = next(each for each in model.graph.initializer if each.name.endswith("classifier.bias"))
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + 1, bias.name))
    onnx.save(model, tmp_path / "other.onnx")
    assert cli("check", source, source, "--junit", "same.xml").returncode == 0
    assert read(tmp_path / "same.xml") == {"logits": None}
    result = cli("check", source, tmp_path / "other.onnx", "--junit", "other.xml")
    assert result.returncode == 5
    assert read(tmp_path / "other.xml")["logits"].startswith("output 'logits' is off by")


def test_another_error_is_a_case_of_its_own(tmp_path):
    with pytest.raises(ModelError), ci.report("check", tmp_path / "a.xml", overwrite=False):
        raise ModelError("a.onnx is \x1b[31m <broken> & 'odd'\nhere")
    assert read(tmp_path / "a.xml") == {"check": "a.onnx is \\x1b[31m <broken> & 'odd' here"}
    with pytest.raises(RequirementError), ci.report("optimize", tmp_path / "a.xml", overwrite=False):
        raise RequirementError("padding stays")
    assert read(tmp_path / "a.xml") == {"optimize": "padding stays"}


def test_only_a_report_of_ours_is_replaced(tmp_path):
    (tmp_path / "a.xml").write_text("<testsuites/>")
    with pytest.raises(UsageError, match="onnxfuse did not make it"), ci.report("check", tmp_path / "a.xml", overwrite=False):
        raise AssertionError("the work began")
    for overwrite in (True, False):
        with ci.report("check", tmp_path / "a.xml", overwrite=overwrite) as found:
            found.cases.append((f"overwrite {overwrite}", ""))
    assert read(tmp_path / "a.xml") == {"overwrite False": None}
    with (
        pytest.raises(UsageError, match="is the input itself"),
        ci.report("check", tmp_path / "a.xml", overwrite=True, sources=[tmp_path / "a.xml"]),
    ):
        raise AssertionError("the work began")


@pytest.mark.parametrize(("value", "shown"), [("true", True), ("", False), (None, False)])
def test_github_gets_an_annotation(cli, monkeypatch, value, shown):
    if value is None:
        monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    else:
        monkeypatch.setenv("GITHUB_ACTIONS", value)
    result = cli("optimize", "50%.onnx", "--json")
    lines = [line for line in result.stderr.splitlines() if line.startswith("::")]
    assert bool(lines) == shown
    assert not shown or lines[0].startswith("::error title=onnxfuse::50%25.onnx is not there")
    assert "::error" not in result.stdout

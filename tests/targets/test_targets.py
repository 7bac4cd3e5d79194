"""Target files: what is shipped is whole, what is read is checked, and every choice reaches the graph."""

import json
import re
from collections import Counter
from dataclasses import replace

import onnx
import onnx_ir as ir
import pytest

from onnxfuse import catalog, targets
from onnxfuse.errors import UsageError
from onnxfuse.io import onnx_file
from onnxfuse.optimizer import fuse
from onnxfuse.rewrite.shapes.native import DOMAIN
from onnxfuse.runtime.sessions import open_session, run
from onnxfuse.targets import NAMES
from tests.layer import FULL, Case, close
from tests.marks import OTHERS
from tests.pages import ROOT


def written(tmp_path, **changes):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(targets.find("cpu").to_json() | {"name": "mine"} | changes))
    return str(path)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_targets(name):
    target = targets.find(name)
    assert target.name == name
    assert target.why


@pytest.mark.parametrize("place", ["docs/api.md", "docs/commands.md", "docs/verbs/optimize.md", "onnxfuse optimize --help"])
def test_shipped_targets_are_named_where_a_user_chooses(place, cli):
    text = cli(*place.split()[1:]).stdout if place.endswith("--help") else (ROOT / place).read_text()
    assert not [name for name in NAMES if not re.search(rf"(?<![-\w]){name}(?![-\w])", text)]


def test_the_default_target_says_where_it_was_measured():
    measured = targets.find("cpu").measured
    assert measured["machine"]
    assert measured["versions"]["onnxruntime"]
    assert "interval" in measured["rule"]
    assert {trial["thing"] for trial in measured["trials"]} >= {"attention", "residual", "gelu", "qkv", "denormals_as_zero"}


def test_a_target_survives_its_file(tmp_path):
    target = targets.find(written(tmp_path, gelu="BiasGelu", session={"threads": 3}))
    assert (target["gelu"], target.session.threads) == ("BiasGelu", 3)
    (tmp_path / "again.json").write_text(json.dumps(target.to_json()))
    assert targets.find(str(tmp_path / "again.json")) == target


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gelu": "Swish"}, "gelu is 'Swish', wanted one of Gelu, BiasGelu"),
        ({"opset": "23"}, "opset is '23', wanted a whole number from 0 to"),
        ({"session": {"runtime": "evil"}}, "mine.json: runtime is 'evil', wanted one of .*ort"),
        ({"speed": 1}, "does not describe a target"),
        ({"session": {"spin": True}}, "does not describe a target"),
        ({"session": [1]}, "does not describe a target"),
        ({"session": {"threads": "x"}}, "threads is 'x', wanted a whole number"),
        ({"session": {"threads": 10**9}}, "threads is 1000000000, wanted 0 to 1024"),
        ({"session": {"runtime": 5}}, "runtime is 5, wanted a text"),
        ({"session": {"spinning": None}}, "spinning is None"),
        ({"opset": True}, "opset is True, wanted a whole number from 0 to"),
        ({"opset": 23.0}, "opset is 23.0, wanted a whole number"),
        ({"opset": -1}, "opset is -1"),
        ({"highest": 2**70}, "highest is 1180591620717411303424, wanted a whole number from 0 to"),
        ({"opset": 99}, "opset is 99, wanted a whole number from 0 to"),
        ({"why": None}, "why is None, wanted a JSON text"),
        ({"name": ["a"]}, "name is .*, wanted a JSON text"),
        ({"measured": []}, "measured is .*, wanted a JSON object"),
        ({"gelu": []}, "gelu is .*, wanted one of"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, changes, words):
    with pytest.raises(UsageError, match=words):
        targets.find(written(tmp_path, **changes))


def test_no_such_target(tmp_path):
    with pytest.raises(
        UsageError, match="no target named 'gpu'; choose one of cpu, cuda, native, openvino, ort-contrib, standard, or a file"
    ):
        targets.find("gpu")
    for content in ("{", "[]", "null", "[" * 100_000, '"cpu"'):
        (tmp_path / "t.json").write_text(content)
        with pytest.raises(UsageError, match="does not describe a target") as error:
            targets.find(str(tmp_path / "t.json"))
        assert str(error.value).count("t.json") == 1 and str(error.value).count("; ") == 1


def test_the_file_of_a_targets_folder_lies_in_it(tmp_path):
    outside, folder = tmp_path / "outside.json", tmp_path / "folder"
    folder.mkdir()
    outside.write_text(json.dumps(targets.find("cpu").to_json()))
    (folder / targets.FILE).symlink_to(outside)
    with pytest.raises(UsageError, match="lies outside"):
        targets.find(str(folder))
    assert targets.find(str(outside)).name == "cpu"
    (tmp_path / "link.json").symlink_to(outside)  # what the user typed may be a link
    assert targets.find(str(tmp_path / "link.json")).name == "cpu"


FOUND = {
    ("attention", "Attention"): "Attention",
    ("attention", "native"): "com.onnxfuse.Attention",
    ("attention", "decomposed"): "Softmax",
    ("attention", "MultiHeadAttention"): "MultiHeadAttention",
    ("gelu", "Gelu"): "Gelu",
    ("gelu", "BiasGelu"): "BiasGelu",
    ("gelu", "elementwise"): "Erf",
    ("residual", "Sum"): "Sum",
    ("residual", "Add"): "Add",
    ("residual", "SkipLayerNormalization"): "SkipLayerNormalization",
    ("qkv", "merged"): "Split",
    ("padding", "removed"): "NonZero",
}


@OTHERS
@pytest.mark.parametrize(
    ("thing", "option"),
    [(thing, option) for thing in ("attention", "gelu", "residual", "qkv", "padding") for option in targets.choices()[thing]],
)
def test_every_choice_reaches_the_graph(bert_export, thing, option):
    counts = _operators(bert_export, targets.find("cpu").choosing(**{"padding": "kept", thing: option}))
    if (thing, option) in FOUND:
        assert counts[FOUND[thing, option]] > 0
    else:  # separate projections, padding kept
        assert counts["Split" if thing == "qkv" else "NonZero"] == 0
    others = [name for (other, name_of), name in FOUND.items() if other == thing and name_of != option and name != "Add"]
    assert not any(counts[name] for name in others)


@pytest.mark.parametrize("name", NAMES)
def test_padding_goes_whatever_attention_is_spelt_as(bert_export, name):
    """And attention's places with it: [P,C], not [B,S]; our own attention needs none."""
    target = targets.find(name)
    counts = _operators(bert_export, target)
    assert counts["NonZero"] == (target["padding"] == "removed")
    assert counts["ArgMin"] == (target["padding"] == "removed" and not target.is_own)
    assert counts[FOUND["attention", target["attention"]]] > 0
    counts = _operators(bert_export, target.choosing(padding="removed"))
    assert (counts["NonZero"], counts["ArgMin"]) == (1, not target.is_own)


NORM = "h = LayerNormalization<axis = -1, epsilon = 0.00001>(r, g1, n1)"


@OTHERS
@pytest.mark.parametrize("opset", [17, 18, 20, 22, 23])
@pytest.mark.parametrize(
    ("attention", "gelu"),
    [(attention, gelu) for attention in targets.choices()["attention"] for gelu in targets.choices()["gelu"]],
)
def test_nothing_is_written_that_the_opset_of_the_model_lacks(opset, attention, gelu):
    """Whatever the target prefers: it may keep any opset."""
    target = replace(targets.find("cpu").choosing(attention=attention, gelu=gelu), opset=0)
    case = Case("", {"norm": NORM}, opset=opset)
    before, after = case.build(), case.build()
    assert fuse(after, target).counts | {"unfused": 0} == FULL | {"unfused": 0}
    onnx.checker.check_model(ir.to_proto(after), full_check=True)
    found = Counter(f"{node.domain}." * (node.domain == DOMAIN) + node.op_type for node in after.graph)
    assert found[FOUND["attention", attention if attention not in ("Attention", "native") or opset == 23 else "decomposed"]] == 1
    assert found[FOUND["gelu", gelu if gelu != "Gelu" or opset >= 20 else "elementwise"]] == 1
    wanted, got = (run(open_session(ir.to_proto(model).SerializeToString()), case.feeds(before)) for model in (before, after))
    assert close(wanted["y"], got["y"], case.tolerance)


def _operators(bert_export, target):
    model = onnx_file.load(bert_export / "export" / "model.onnx")
    catalog.architecture("bert").name_inputs(model)
    fuse(model, target)
    return Counter(f"{node.domain}." * (node.domain == DOMAIN) + node.op_type for node in model.graph)


def test_a_target_lacks_what_it_needs(tmp_path):
    (tmp_path / "bare.json").write_text('{"name": "bare"}')
    with pytest.raises(UsageError, match=r"does not describe a target .it does not say opset, why.; write one with"):
        targets.find(str(tmp_path / "bare.json"))


def test_a_target_that_is_brought_has_a_name_of_its_own(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "target.json").write_text('{"name": "cpu", "opset": 20, "why": "an example"}')
    monkeypatch.setenv("ONNXFUSE_PLUGINS", str(tmp_path / "a"))
    with pytest.raises(UsageError, match=r"a/target\.json names its target 'cpu', and there is one; give it another name"):
        targets.find("cpu")

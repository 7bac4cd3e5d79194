"""A fusion that someone else brings, in one file outside the package, works in every command as our own do."""

import json

import onnx
import onnx_ir as ir
import pytest

from tests.conftest import messages, ops, parse

SIGMOID = """
from onnxfuse.rewrite import Fusion, Rule


def before(op, x, one):
    return op.Reciprocal(op.Add(op.Exp(op.Neg(x)), one))


def guard(match):
    match.need_scalar("one", 1.0)


def after(op, x, **_):
    return op.Sigmoid(x)


FUSION = Fusion("logistic", (Rule("sigmoid", before, guard, after),), operator="Sigmoid", anchors=("Exp",), leftovers=("Exp",))
"""

MODEL = """g (float[B,8] x) => (float[B,8] y) <float one = {1}, float two = {2}>
    { n = Neg(x)  e = Exp(n)  a = Add(e, one)  s = Div(one, a)
      m = Neg(s)  f = Exp(m)  b = Add(f, two)  y = Div(one, b) }"""
"""A sigmoid, and something that only looks like one."""


@pytest.fixture
def brought(monkeypatch, tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "sigmoid.py"
    path.write_text(SIGMOID)
    monkeypatch.setenv("ONNXFUSE_PLUGINS", str(path))


@pytest.fixture
def model(tmp_path):
    onnx.save(ir.to_proto(parse(MODEL, opset=17)), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def optimized(cli, model, *options):
    result = cli("optimize", model, "--json", *options)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout), ops(ir.load(model.with_name("model_optimized.onnx")))


def test_it_fuses_and_is_counted_and_proven(brought, cli, model):
    step, nodes = optimized(cli, model)
    assert nodes == ["Add", "Exp", "Neg", "Reciprocal", "Sigmoid"]
    assert (step["fused"]["logistic"], step["fused"]["unfused"]) == (1, 1)
    assert step["trace"]["rules"]["sigmoid"] == 1
    assert not step["trace"]["unproven"]
    assert step["parity"]["passed"]


@pytest.mark.parametrize(
    ("right", "wrong", "code", "words"),
    [
        ("op.Sigmoid(x)", "op.Sigmoid(y)", 3, "rule 'sigmoid' fails at s: NameError: name 'y' is not defined; leave it out with"),
        ("return op.Sigmoid(x)", "op.Sigmoid(x)", 3, "TypeError: after returns a NoneType, wanted the new value"),
        (
            '(Rule("sigmoid", before, guard, after),)',
            'Rule("sigmoid", before, guard, after)',
            2,
            "logistic has a Rule as its rules, wanted",
        ),
        ("match.need_scalar", "match.want_scalar", 3, "rule 'sigmoid' fails at s: AttributeError"),
        ("op.Neg(x)", "op.Neg(x)[0]", 2, "rule 'sigmoid': its pattern fails: TypeError"),
        ('Rule("sigmoid"', 'Rule("gelu"', 2, "rule 'gelu' of logistic is called as one of gelu; give it another name"),
        ('Rule("sigmoid"', 'Rule("cast-noop"', 2, "rule 'cast-noop' of logistic is called as one of the normal form; give it"),
        ('Rule("sigmoid"', 'Rule("unpad"', 2, "rule 'unpad' of logistic is called as one of a pass; give it another name"),
    ],
)
def test_a_faulty_one_is_named_in_one_line(monkeypatch, tmp_path, cli, model, right, wrong, code, words):
    faulty = tmp_path / "plugin" / "faulty.py"
    faulty.parent.mkdir()
    faulty.write_text(SIGMOID.replace(right, wrong))
    monkeypatch.setenv("ONNXFUSE_PLUGINS", str(faulty))
    result = cli("optimize", model)
    lines = messages(result.stderr)
    assert (result.returncode, len(lines)) == (code, 1), result.stderr
    assert words in lines[0]
    assert not model.with_name("model_optimized.onnx").exists()


def test_it_can_be_left_out_and_required(brought, cli, model):
    step, nodes = optimized(cli, model, "--without", "sigmoid")
    assert nodes.count("Exp") == 2
    assert (step["fused"]["logistic"], step["fused"]["unfused"]) == (0, 2)
    refused = cli("optimize", model, "--require", "logistic=2")
    assert refused.returncode == 6
    assert "logistic fused 1 times, required 2; embeddings: logistic not done near f: 4 nodes matched" in refused.stderr
    assert "one is 2.0, wanted 1.0" in refused.stderr


def test_explain_tells_of_it(brought, cli, model):
    found = json.loads(cli("explain", model, "--json").stdout)["findings"]
    assert [(finding["fusion"], finding["done"], finding["at"]) for finding in found] == [
        ("logistic", True, "s"),
        ("logistic", False, "f"),
    ]


def test_ablate_measures_it(brought):
    from onnxfuse.pipeline.ablation import variants
    from onnxfuse.targets import find

    assert {"sigmoid alone", "all but sigmoid"} <= {variant.name for variant in variants(find("cpu"))}


def test_nobody_knows_it_where_nobody_brings_it(cli, model):
    step, nodes = optimized(cli, model)
    assert nodes.count("Exp") == 2
    assert "logistic" not in step["fused"]
    assert cli("optimize", model, "--without", "sigmoid").returncode == 2


def test_one_that_comes_after_what_is_not_there_is_named(cli, model, monkeypatch, tmp_path_factory):
    path = tmp_path_factory.mktemp("elsewhere") / "late.py"
    path.write_text(SIGMOID.replace("operator=", 'after=("nothing",), operator='))
    monkeypatch.setenv("ONNXFUSE_PLUGINS", str(path))
    refused = cli("optimize", model)
    assert refused.returncode == 2
    assert "fusion 'logistic' comes after nothing, which is not there" in refused.stderr

"""``explain`` on a layer that was broken by one edit names that edit; the command, and what ``--require`` says of it."""

import json

import onnx
import onnx_ir as ir
import pytest

from onnxfuse import catalog
from onnxfuse.errors import UsageError
from onnxfuse.io import onnx_file
from onnxfuse.optimizer import count, fuse
from onnxfuse.pipeline.explain import explain
from onnxfuse.targets import find
from tests.conftest import fill, parse
from tests.layer import FULL, LOOK_ALIKES, SPELLINGS, Case

CASES = {case.name: case for case in (*SPELLINGS, *LOOK_ALIKES)}


def missing(case: Case) -> list:
    findings = explain(case.build(), find("cpu"), tuple(catalog.architecture("bert").counts))
    return [finding for finding in findings if not finding.done]


@pytest.mark.parametrize(
    ("name", "fusion", "where", "words"),
    [
        ("scale is an input", "attention", "factor", "scale is not a constant scalar"),
        ("softmax over queries", "attention", "cm", "softmax runs over axis 2, wanted the last"),
        ("probabilities are an output", "attention", "p", "p is also a graph output; export without that output"),
        ("scores are read elsewhere", "attention", "scaled", "scaled is also read elsewhere"),
        ("mask added after softmax", "attention", "p", "saw Add, wanted Softmax"),
        ("mask [B,S,T], ambiguous with heads", "attention", "m3d", "the mask has rank 3, wanted 2 or 4"),
        ("v heads of another size", "attention", "v", "v is not split into [B,T,4,4] as q"),
        ("float32 softmax inside float16", "attention", "p", "saw Cast, wanted Softmax"),
        ("k is read elsewhere", "qkv", "k", "k is also read elsewhere"),
        ("wv can be overridden", "qkv", "wv", "wv is not a constant; make it an initializer that is no graph input"),
        ("v from another input", "qkv", "z", "saw another value, wanted 'x' = x"),
        ("norm over tokens", "layer_norm", "mean", "the axes are [1], wanted the last dimension"),
        ("epsilon negative", "layer_norm", "small", "wanted above zero"),
        ("epsilon added after the root", "layer_norm", "sd", "saw Add, wanted Sqrt"),
        ("variance is an output", "layer_norm", "var", "var is also a graph output"),
        ("gelu with 0.7072", "gelu", "off", "inner is 0.7102"),
        ("gelu times another tensor", "gelu", "u", "saw another value, wanted 'x' = t"),
        ("tanh gelu with another cubic", "gelu", "off", "cubic is 0.0546"),
    ],
)
def test_one_edit_is_named(name, fusion, where, words):
    found = missing(CASES[name])
    assert [(finding.fusion, finding.where) for finding in found] == [(fusion, where)]
    assert words in str(found[0])
    assert str(found[0]).startswith(f"layer 0: {fusion} not done near ")


@pytest.mark.parametrize("case", [case for case in SPELLINGS if not case.counts], ids=lambda case: case.name)
def test_nothing_is_missing_in_a_whole_layer(case):
    findings = explain(case.build(), find("cpu"), tuple(catalog.architecture("bert").counts))
    assert all(finding.done for finding in findings)
    assert sorted(finding.fusion for finding in findings) == sorted(name for name, count in FULL.items() for _ in range(count))


def test_another_activation_is_absent():
    found = missing(Case("relu", {"gelu": "a = Relu(u)"}))
    assert [(finding.fusion, finding.matched) for finding in found] == [("gelu", 0)]
    assert "nothing there looks like it" in str(found[0])


def test_layers_of_every_family(bert_export):
    findings = explain(
        onnx_file.load(bert_export / "export" / "model.onnx"), find("cpu"), tuple(catalog.architecture("bert").counts)
    )
    assert [(finding.layer, finding.fusion) for finding in findings if finding.layer != "layer 1"] == [
        ("embeddings", "layer_norm"),
        ("layer 0", "attention"),
        ("layer 0", "qkv"),
        ("layer 0", "layer_norm"),
        ("layer 0", "gelu"),
        ("layer 0", "layer_norm"),
    ]


def test_the_command_and_require(cli, tmp_path):
    onnx.save(ir.to_proto(CASES["softmax over queries"].build()), tmp_path / "model.onnx")
    result = cli("explain", "--model-type", "bert")
    assert result.returncode == 0, result.stderr
    assert "layer 0: 2 layer_norm, gelu done" in result.stdout
    assert "softmax runs over axis 2, wanted the last" in result.stdout
    assert "3 of 4 done" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("padding: kept: ")
    answer = json.loads(cli("explain", "--json").stdout)
    assert answer["padding"] in result.stdout
    assert [finding["fusion"] for finding in answer["findings"] if not finding["done"]] == ["attention"]
    refused = cli("optimize", "--require", "attention=1")
    assert refused.returncode == 6
    assert "attention fused 0 times, required 1; layer 0: attention not done near p: 13 nodes matched" in refused.stderr
    assert "softmax runs over axis 2" in refused.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_what_stands_in_a_body_is_told(cli, tmp_path):
    onnx.save(
        ir.to_proto(
            parse("""g (bool c, float[B,S] x) => (float[B,S] y) {
        y = If(c) <then_branch = t () => (float[B,S] p) { h = Exp(x)  p = Softmax(h) }, else_branch = e () => (float[B,S] q) { q = Relu(x) }>
        }""")
        ),
        tmp_path / "model.onnx",
    )
    said = cli("explain").stdout
    assert "inside If: fusions not done near y" in said
    assert "a body of If holds Softmax; bodies are left as they are" in said
    assert "0 of 1 done" in said


def test_dump_holds_the_graph_after_each_rewrite(tmp_path):
    from onnxfuse.rewrite.dump import Dump

    model = CASES["as it is"].build()
    weight = model.graph.initializers["w1"].const_value
    trace = fuse(model, find("cpu"), listener=Dump(model, tmp_path)).trace
    files = sorted(path.name for path in tmp_path.glob("*.onnx"))
    assert len(files) == len(trace.applications)
    at = next(i for i, name in enumerate(files) if "-attention" in name)
    operators = [
        [node.op_type for node in onnx.load(tmp_path / name, load_external_data=False).graph.node]
        for name in files[at - 1 : at + 1]
    ]
    assert ["Attention" in names for names in operators] == [False, True]
    assert weight.nbytes >= 1024
    assert not any(path.stat().st_size > 40_000 for path in tmp_path.glob("*.onnx"))
    changes = (tmp_path / "changes.txt").read_text()
    assert f"{files[at].removesuffix('.onnx')} at cm\n  - " in changes
    assert "+ cm = Attention(q, k, v, " in changes
    Dump(model, tmp_path)
    assert not list(tmp_path.iterdir())


def test_dump_removes_what_a_dump_wrote_alone(tmp_path):
    from onnxfuse.rewrite.dump import Dump

    model = CASES["as it is"].build()
    (tmp_path / "changes.txt").write_text("0001-gelu at y\n  - y = Erf(x)\n")
    for name in ("0001-gelu.onnx", "0002-mine.onnx"):
        (tmp_path / name).write_text("there")
    with pytest.raises(UsageError, match=r"0002-mine\.onnx in it is of no earlier dump; give an empty folder"):
        Dump(model, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0001-gelu.onnx", "0002-mine.onnx", "changes.txt"]


def test_a_runtimes_own_operator_is_not_called_done():
    """What com.microsoft's operators do is not fused for a target of standard operators, and is said where it stands."""
    model = parse("""g (float[B,S,8] x, float[8,24] w, float[24] b, float[8] g1, float[8] b1) => (float[B,S,8] y, float[B,S,1] mean) {
        a = com.microsoft.Attention<num_heads = 2, do_rotary = 1>(x, w, b)
        y, mean = com.microsoft.SkipLayerNormalization(a, x, g1, b1) }""")
    fill(model, w=(8, 24), b=(24,), g1=(8,), b1=(8,))
    found = explain(model, find("cpu"), ("attention", "layer_norm"))
    assert [finding.done for finding in found] == [False] * len(found)
    assert {finding.fusion for finding in found} == {"attention", "layer_norm"}
    said = next(str(finding) for finding in found if finding.fusion == "layer_norm")
    assert (
        "its output 1 is read, and has no standard operator; com.microsoft.SkipLayerNormalization runs in its own runtime" in said
    )


def test_a_runtimes_own_operator_does_not_count_as_fused():
    model = parse("""g (float[B,S,8] x, float[8,24] w, float[24] b) => (float[B,S,8] y) {
        y = com.microsoft.Attention<num_heads = 2, do_rotary = 1>(x, w, b) }""")
    counts = count(fill(model, w=(8, 24), b=(24,)))
    assert (counts["attention"], counts["qkv"], counts["unfused"]) == (0, 0, 1)


def test_an_activation_that_is_no_gelu_is_not_missed():
    case = next(case for case in SPELLINGS)
    model = case.build()
    found = explain(model, find("cpu"), ("attention", "layer_norm"))
    assert not any(finding.fusion == "gelu" and not finding.done for finding in found)


def test_the_operator_that_hides_a_shape_is_named():
    model = parse("""g (float[B,S,8] x, float[B,S,8] z, float[8,8] w) => (float[B,S,8] y) <int64[4] heads = {0, 0, 2, 4}, int64[3] flat = {0, 0, 8}> {
        h = com.acme.Blend(x)  q = MatMul(h, w)  q4 = Reshape(q, heads)  qt = Transpose<perm = [0, 2, 1, 3]>(q4)
        k4 = Reshape(x, heads)  kt = Transpose<perm = [0, 2, 3, 1]>(k4)  s = MatMul(qt, kt)  p = Softmax<axis = -1>(s)
        v4 = Reshape(z, heads)  vt = Transpose<perm = [0, 2, 1, 3]>(v4)  c = MatMul(p, vt)
        ct = Transpose<perm = [0, 2, 1, 3]>(c)  y = Reshape(ct, flat) }""")
    fill(model, w=(8, 8))
    said = [str(finding) for finding in explain(model, find("cpu"), ("attention",)) if finding.fusion == "attention"]
    assert any("no shape inference tells what com.acme.Blend at h gives" in line for line in said), said


POSITIONS = """g (float[B,2,S,4] q, float[B,2,T,4] k, float[B,2,P,4] places, int64[B,2,S,T] at, float[9,1] table) => (float[B,2,S,T] y)
    <float two = {2.0}> {
    t = Transpose<perm = [0, 1, 3, 2]>(k)  s = MatMul(q, t)
    r = Transpose<perm = [0, 1, 3, 2]>(places)  all = MatMul(q, r)  picked = GatherElements<axis = 3>(all, at)
    half = Div(picked, two)  sum = Add(s, half)  y = Softmax<axis = -1>(sum) }"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (POSITIONS, True),
        (POSITIONS.replace("half = Div(picked, two)", "half = Tanh(picked)"), False),  # hidden behind another operator
        (
            POSITIONS.replace("GatherElements<axis = 3>(all, at)", "Relu(at2)").replace(
                "int64[B,2,S,T] at", "float[B,2,S,T] at2"
            ),
            False,
        ),
        (POSITIONS.replace("all = MatMul(q, r)", "all = Tanh(q)"), False),
    ],
)
def test_scores_of_positions_say_what_they_are(text, shown):
    findings = explain(parse(text), find("cpu"), ("attention",))
    (finding,) = (finding for finding in findings if finding.fusion == "attention")
    assert (finding.where == "picked", "GatherElements picks scores of positions" in finding.seen) == (shown, shown)

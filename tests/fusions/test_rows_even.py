"""One token more where their number is odd: linear layers run on it, nobody reads it, and what mixes tokens sees none of it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxfuse import targets
from onnxfuse.config import ExportConfig, OptimizeConfig
from onnxfuse.fusions import rows_even
from onnxfuse.fusions.rows_even import FEWEST
from onnxfuse.io import onnx_file
from onnxfuse.optimizer import lowerings
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.optimize import optimize
from tests.conftest import apply, assert_same, fill, parse

NORM = "LayerNormalization<axis = -1>"
MERGED = "h = MatMul(n, wide)  c = Add(h, row)  q, k, v = Split<axis = -1>(c, sizes)"
SEPARATE = "q = MatMul(n, wq)  k = MatMul(n, wk)  c = MatMul(n, wv)  v = Add(c, b)"
ATTENTION = "a = Attention<q_num_heads = 2, kv_num_heads = 2>(q, k, v)"
FIRST = "o = MatMul(a, wo)  p = Add(o, b)  r = Add(x, p)"
GELU = "i = MatMul(m, wi)  g = Gelu(i)  f = MatMul(g, wf)  z = Add(r, f)"
QUICK = "i = MatMul(m, wi)  s = Mul(i, speed)  t = Sigmoid(s)  g = Mul(i, t)  f = MatMul(g, wf)  z = Add(r, f)"
SCALED = "i = MatMul(m, wi)  g = Gelu(i)  f0 = MatMul(g, wf)  f = Mul(f0, b)  z = Add(r, f)"
WHOLE, TOKEN = "y = Identity(z)", "y = Gather<axis = 1>(z, token)"
SHAPES = {"wide": (16, 48), "row": (48,), "gain": (16,), "b": (16,), "wi": (16, 32), "wf": (32, 16)} | dict.fromkeys(
    ("wq", "wk", "wv", "wo"), (16, 16)
)


def layer(tokens=33, projections=MERGED, attention=ATTENTION, feed_forward=GELU, last=TOKEN, token=0, more="", shown=""):
    """An encoder layer with its norms in front, as ViT has it, on so many tokens."""
    body = f"n = {NORM}(x, gain, b)  {projections}  {attention}  {FIRST}  m = {NORM}(r, gain, b)  {feed_forward}  {last}"
    read = [name for name in SHAPES if f", {name})" in body or f", {name}, " in body]
    given = ", ".join(f"float[{','.join(map(str, SHAPES[name]))}] {name}" for name in read)
    shown = shown or ("float[B,16] y" if "Gather" in last else f"float[B,{tokens},16] y")
    constants = f"int64[3] sizes = {{16, 16, 16}}, int64 token = {{{token}}}, float speed = {{1.702}}"
    text = f"g (float[B,{tokens},16] x, {given}{more}) => ({shown}) <{constants}> {{ {body} }}"
    return fill(parse(text), **{name: SHAPES[name] for name in read})


def changed(**options):
    """(before, after, how often the rules fired)."""
    before, after = layer(**options), layer(**options)
    count = apply(rows_even.RULES, after).to_json()["rules"].get(rows_even.NAME, 0)
    assert_same(before, after, {"B": 2, "S": 33})
    return before, after, count


def rows_of(model):
    """The rows of what each linear layer reads, as ONNX infers them."""
    kept = model.clone()
    for node in kept.graph:
        if node.op_type == "MatMul" and not node.inputs[0].is_graph_output():
            node.inputs[0].name = node.inputs[0].name or "x"
            kept.graph.outputs.append(node.inputs[0])

    proto = onnx.shape_inference.infer_shapes(ir.to_proto(kept), strict_mode=True, data_prop=True)
    known = {value.name: value for value in (*proto.graph.output, *proto.graph.value_info)}
    names = [node.input[0] for node in proto.graph.node if node.op_type == "MatMul"]
    return {known[name].type.tensor_type.shape.dim[1].dim_value for name in names}


@pytest.mark.parametrize("projections", [MERGED, SEPARATE], ids=["merged", "separate"])
@pytest.mark.parametrize("feed_forward", [GELU, QUICK, SCALED], ids=["gelu", "quick gelu", "layer scale"])
def test_every_linear_layer_has_an_even_number_of_rows(projections, feed_forward):
    _, after, _ = changed(projections=projections, feed_forward=feed_forward)
    assert rows_of(after) == {34}
    kinds = [node.op_type for node in after.graph]
    assert kinds.count("Pad") == 2, "of the first norm, and of what is added behind attention"
    assert kinds.count("Slice") == 2, "keys and values"


def test_an_output_of_tokens_has_as_many_as_before():
    _, after, _ = changed(last=WHOLE)
    assert after.graph.outputs[0].producer().op_type in ("Slice", "Identity") and rows_of(after) == {34}


def test_a_token_counted_from_the_end_is_the_same():
    _, after, _ = changed(token=-1)
    pick = after.graph.outputs[0].producer()
    assert pick.op_type == "Gather" and pick.inputs[0].producer().op_type == "Slice"


def test_attention_with_a_mask_stays_as_it_is():
    _, after, _ = changed(attention=ATTENTION.replace("(q, k, v)", "(q, k, v, mask)"), more=", float[B,1,33,33] mask")
    (attention,) = (node for node in after.graph if node.op_type == "Attention")
    assert attention.inputs[0].producer().op_type == "Slice"
    assert rows_of(after) == {34}, "behind it they begin anew"


@pytest.mark.parametrize("tokens", [34, FEWEST - 1, 1, '"S"'])
def test_other_numbers_of_tokens_stay(tokens):
    assert changed(tokens=str(tokens).strip('"'))[2] == 0


def test_a_slice_that_takes_something_else_stays():
    lines = "n = Slice(x, from, to, axis)  h = MatMul(n, w)  y = Gelu(h)"
    constants = "int64[1] from = {1}, int64[1] to = {34}, int64[1] axis = {1}"
    text = f"g (float[B,34,16] x, float[16,16] w) => (float[B,33,16] y) <{constants}> {{ {lines} }}"
    before, after = (fill(parse(text), w=(16, 16)) for _ in range(2))
    apply(rows_even.RULES, after)
    assert_same(before, after, {"B": 2})
    assert after.graph[0].op_type == "Slice" and rows_of(after) == {33}


def test_keys_that_are_read_elsewhere_are_as_before():
    _, after, _ = changed(projections=SEPARATE, last=TOKEN, shown="float[B,16] y, float[B,33,16] k")
    assert rows_of(after) == {34}


def test_it_goes_before_attention_is_written_as_products():
    chosen = lowerings(targets.find("openvino"))
    assert chosen[0].name == "rows even"
    assert not any(rule.name == rows_even.NAME for each in lowerings(targets.find("cpu")) for rule in each.rules)


@pytest.mark.parametrize("family", ["vit", "clip_vision"])
def test_image_encoders_for_openvino(family, tmp_path):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if family == "vit":
        model = transformers.ViTForImageClassification(transformers.ViTConfig(image_size=24, patch_size=4, **small))
    else:
        model = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(image_size=24, patch_size=4, **small))
    source = export(ExportConfig("small", tmp_path / "model", exporter="torchscript"), source=model.eval()).path
    made = {
        target: optimize(OptimizeConfig(source, tmp_path / f"{target}.onnx", target, require=("all",), verify="each"))
        for target in ("openvino", "cpu")
    }
    fired = {target: step.trace.to_json()["rules"].get(rows_even.NAME, 0) for target, step in made.items()}
    assert fired["openvino"] > 15 and fired["cpu"] == 0
    assert not made["openvino"].trace.rejected and not made["openvino"].trace.unproven
    rows = [node for node in onnx_file.load(made["openvino"].path).graph if node.op_type == "Pad"]
    assert np.array_equal(rows[0].inputs[1].const_value.numpy(), [0, 0, 0, 0, 1, 0])

"""Which layer a node is of: in fused graphs and others, with norms before and behind, and where only names tell."""

import onnx_ir as ir
import pytest

from onnxfuse.pipeline.layers import homes, in_order, within
from tests.conftest import fill, parse

D = "float[2,5,8]"


def layer(x: str, y: str, n: int) -> str:
    """A layer in the normal form of a fused one, norms behind: x to y."""
    return f"""
        q{n} = MatMul({x}, w) k{n} = MatMul({x}, w) v{n} = MatMul({x}, w)
        a{n} = Attention<q_num_heads = 2, kv_num_heads = 2>(q{n}, k{n}, v{n})
        o{n} = MatMul(a{n}, w) r{n} = Add(o{n}, {x}) m{n} = LayerNormalization(r{n}, g, b)
        i{n} = MatMul(m{n}, w) e{n} = Gelu(i{n}) f{n} = MatMul(e{n}, w) s{n} = Add(f{n}, m{n}) {y} = LayerNormalization(s{n}, g, b)"""


def first(x: str, y: str, n: int) -> str:
    """A layer with its norms in front."""
    return f"""
        h{n} = LayerNormalization({x}, g, b)
        q{n} = MatMul(h{n}, w) k{n} = MatMul(h{n}, w) v{n} = MatMul(h{n}, w)
        t{n} = Transpose<perm = [0, 2, 1]>(k{n}) c{n} = MatMul(q{n}, t{n}) p{n} = Softmax(c{n}) a{n} = MatMul(p{n}, v{n})
        o{n} = MatMul(a{n}, w) r{n} = Add(o{n}, {x}) m{n} = LayerNormalization(r{n}, g, b)
        i{n} = MatMul(m{n}, w) e{n} = Gelu(i{n}) f{n} = MatMul(e{n}, w) {y} = Add(f{n}, r{n})"""


def where(body: str) -> dict[str, str]:
    """The home of each value's node, by the value's name."""
    model = parse(f"g ({D} x0, float[8,8] w, float[8] g, float[8] b) => ({D} y) {{ {body} }}")
    graph = fill(model, w=(8, 8), g=(8,), b=(8,)).graph
    return {node.outputs[0].name: home for node, home in homes(graph).items()}


def test_norms_behind():
    found = where(
        f"x1 = LayerNormalization(x0, g, b) {layer('x1', 'x2', 0)} {layer('x2', 'x3', 1)} z = MatMul(x3, w) y = Softmax(z)"
    )
    assert found.pop("x1") == "embeddings"
    assert {found.pop("z"), found.pop("y")} == {"head"}
    assert {name: home for name, home in found.items() if home != f"layer {name[-1]}"} == {"x2": "layer 0", "x3": "layer 1"}


def test_norms_in_front_and_attention_as_products():
    found = where(
        f"x1 = Relu(x0) {first('x1', 'x2', 0)} {first('x2', 'x3', 1)} n = LayerNormalization(x3, g, b) y = MatMul(n, w)"
    )
    assert found.pop("x1") == "embeddings"
    assert {found.pop("n"), found.pop("y")} == {"head"}
    assert {name: home for name, home in found.items() if home != f"layer {name[-1]}"} == {"x2": "layer 0", "x3": "layer 1"}


def test_what_one_layer_alone_reads_is_of_it_and_what_several_read_is_not():
    one = layer("x1", "x2", 0)
    two = layer("x2", "y", 1).replace("q1, k1", "q9, k9") + ""
    found = where(f"x1 = Relu(x0) k9 = Tanh(x0) {one} {two.replace('q1 =', 'q9 =')} ")
    assert found["k9"] == "layer 1"
    shared = one.replace("q0, k0", "q0, k9").replace("k0 = MatMul(x1, w)", "")
    found = where(f"x1 = Relu(x0) k9 = Tanh(x0) {shared} {two.replace('q1 =', 'q9 =')}")
    assert found["k9"] == "embeddings"


def test_one_layer_alone_has_no_head():
    found = where(f"x1 = Relu(x0) {layer('x1', 'x2', 0)} y = MatMul(x2, w)")
    assert set(found.values()) == {"embeddings", "layer 0"}


def test_a_last_layer_of_another_form_has_no_head():
    other = layer("x2", "x3", 1).replace("e1 = Gelu(i1) f1 = MatMul(e1, w)", "f1 = Gelu(i1)")
    found = where(f"x1 = Relu(x0) {layer('x1', 'x2', 0)} {other} y = Relu(x3)")
    assert found["y"] == "layer 1"


def test_without_attention_names_tell():
    model = parse(
        f"g ({D} x, float[8,8] w) => ({D} y) {{ a = MatMul(x, w) b = Tanh(a) c = MatMul(b, w) d = Relu(c) y = Softmax(d) }}"
    )
    graph = fill(model, w=(8, 8)).graph
    nodes = list(graph)
    nodes[0].name = "/encoder/layer.3/output/MatMul"
    nodes[1].outputs[0].name = "bert.encoder.layers.11.act"
    nodes[2].name = "node_linear_4"
    weight = graph.initializers["w"]
    nodes[2].replace_input_with(1, ir.Value(name="transformer.h.0.mlp.weight", const_value=weight.const_value))
    graph.register_initializer(nodes[2].inputs[1])
    nodes[3].name = "/layernorm.2/Relu"
    assert list(homes(graph).values()) == ["layer 3", "layer 11", "layer 0", "other", "other"]


@pytest.mark.parametrize("name", ["layer", "player.3.x", "layer.x", "h3"])
def test_names_without_a_number_tell_nothing(name):
    graph = parse("g (float[2] x) => (float[2] y) { y = Relu(x) }").graph
    graph[0].name = name
    assert list(homes(graph).values()) == ["other"]


def test_what_a_body_reads_is_before_it():
    body = "y = If (c) <then_branch = p () => (float[2,5,8] t) { t = Relu(x3) }, else_branch = n () => (float[2,5,8] e) { e = Tanh(x3) }>"
    found = where(
        f"x1 = Relu(x0) {layer('x1', 'x2', 0)} {layer('x2', 'x3', 1)} m = ReduceSum<keepdims = 0>(x1) z = Sub(m, m) c = Greater(m, z) {body}"
    )
    assert found["y"] == "head"


def test_a_softmax_of_a_classifier_is_no_attention():
    body = f"x1 = Relu(x0) {layer('x1', 'x2', 0)} {layer('x2', 'x3', 1)} z = Softmax(x3) y = MatMul(z, w)"
    found = where(body)
    assert (found["z"], found["y"]) == ("head", "head")


def test_what_the_head_alone_reads_is_of_it():
    found = where(f"x1 = Relu(x0) m = Tanh(x0) c = Abs(m) {layer('x1', 'x2', 0)} {layer('x2', 'x3', 1)} y = Mul(x3, c)")
    assert (found["m"], found["c"], found["x1"]) == ("head", "head", "embeddings")


def test_who_reads_sizes_alone_moves_nothing():
    sized = first("x1", "x2", 0).replace(
        "o0 = MatMul(a0, w)", "z0 = Shape(q0) n0 = Identity(z0) d0 = MatMul(a0, w) o0 = Reshape(d0, n0)"
    )
    found = where(f"x1 = Relu(x0) {sized} {first('x2', 'x3', 1)} y = Relu(x3)")
    assert {found[name] for name in ("h0", "q0", "z0", "n0", "d0", "o0")} == {"layer 0"}


def test_several_layers_in_one_stand_behind_their_last_and_hold_their_own():
    names = ["other", "head", "layer 2", "layers 0 to 1", "layer 10", "layer 1", "embeddings", "layer 2", "layers 0 to 2"]
    wanted = ["embeddings", "layer 1", "layers 0 to 1", "layer 2", "layers 0 to 2", "layer 10", "head", "other"]
    assert in_order(names) == wanted
    held = {"layer 0": "layers 0 to 2", "layer 2": "layers 0 to 2", "layers 0 to 1": "layers 0 to 2"}
    for name in (
        "layer 0",
        "layer 2",
        "layers 0 to 1",
        "layer 10",
        "layer 3",
        "layers 1 to 4",
        "head",
        "layer x",
        "layer \N{SUPERSCRIPT TWO}",
    ):
        assert within(name, names) == held.get(name, name)

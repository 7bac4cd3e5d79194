"""A model of our operators holds functions of standard ones, which a runtime without our library runs to the same answers."""

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxfuse import native
from onnxfuse.native import bodies, functions
from onnxfuse.rewrite import Op
from onnxfuse.rewrite.shapes.native import DOMAIN

RNG = np.random.default_rng(0)

FLOAT32 = 1e-5
"""Of the largest number: sums and exponents of float32 in another order, as ``rewrite.proof`` has it."""


@pytest.fixture(autouse=True)
def seeded():
    """The same numbers in whatever order tests run."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


K, N, HEADS = 24, 16, 2


def constant(op, *shape, kind=np.float32):
    if kind == np.int8:
        return op.constant(RNG.integers(-127, 128, shape).astype(np.int8), "weight")
    return op.constant((RNG.standard_normal(shape) * 0.3).astype(kind), "weight")


def model(build, **inputs):
    """A model of what ``build`` writes from inputs of those shapes and types."""
    values = {
        name: ir.Value(name=name, type=ir.TensorType(kind), shape=ir.Shape(shape)) for name, (kind, shape) in inputs.items()
    }
    op = Op(ir.Graph([], [], nodes=[], opset_imports={"": 23}), "made")
    y = build(op, **values)
    y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape(["a", "b", "c"])
    graph = ir.Graph(
        list(values.values()), [y], nodes=list(op.nodes), initializers=list(op.initializers), name="g", opset_imports={"": 23}
    )
    made = ir.Model(graph, ir_version=10)
    functions.complete(made)
    return made


def answers(made, library, **feeds):
    """Without the library's operators unless ``library``."""
    options = ort.SessionOptions()
    if library:
        options.register_custom_ops_library(native.path())
    proto = ir.to_proto(made)
    onnx.checker.check_model(proto)
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def linear(kind, activation="", rows=False, residual=False, norm=False, bias=True):
    def build(op, x, r):
        weight = constant(op, K, N, kind=kind)
        scale = op.constant(RNG.uniform(0.001, 0.002, N).astype(np.float32), "scale") if kind == np.int8 else None
        of_rows = op.constant(RNG.uniform(0.5, 2, K).astype(np.float32), "rows") if rows else None
        parts = [scale, of_rows, constant(op, N) if bias else None, r if residual else None]
        parts += [constant(op, N), constant(op, N)] if norm else []
        epsilon = {"epsilon": 1e-5} if norm else {}
        return op.Linear(x, weight, *parts, activation=activation, _domain=DOMAIN, **epsilon)

    return build


FLOAT = ir.DataType.FLOAT

KINDS = [np.float32, ml_dtypes.bfloat16, np.int8]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"bias": False},
        {"activation": "Gelu"},
        {"activation": "GeluTanh", "residual": True},
        {"residual": True, "norm": True},
        {"norm": True},
    ],
)
def test_a_linear_layer_is_the_same_with_and_without_the_library(kind, parts):
    made = model(linear(kind, rows=kind == np.int8, **parts), x=(FLOAT, ["a", "b", K]), r=(FLOAT, ["a", "b", N]))
    x = RNG.standard_normal((2, 5, K)).astype(np.float32)
    x[0, 1, 3] = 40  # far from all others of its row
    feeds = {"x": x, "r": RNG.standard_normal((2, 5, N)).astype(np.float32)}
    with_it, without = (answers(made, library, **feeds) for library in (True, False))
    # rounding of float32; of bfloat16 the same products in another order
    np.testing.assert_allclose(with_it, without, rtol=0, atol=2e-5 * max(1, np.abs(without).max()))


def attention(merged=False, bounds=False, bias=False, queries=None):
    def build(op, q, k, v, bounds_, bias_):
        inputs = [q, None, None] if merged else [q, k, v]
        return op.Attention(
            *inputs,
            bounds_ if bounds else None,
            bias_ if bias else None,
            num_heads=HEADS,
            scale=0.0,
            precision="float32",
            _domain=DOMAIN,
        )

    return build


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_attention_is_the_same(merged, bias):
    width = 3 * N if merged else N
    made = model(
        attention(merged, bias=bias),
        q=(FLOAT, ["a", "b", width]), k=(FLOAT, ["a", "b", N]), v=(FLOAT, ["a", "b", N]),
        bounds_=(ir.DataType.INT64, ["n"]), bias_=(FLOAT, ["t"]),
    )  # fmt: skip
    feeds = {name: RNG.standard_normal((2, 5, width if name == "q" else N)).astype(np.float32) for name in "qkv"}
    feeds |= {"bounds_": np.zeros(1, np.int64), "bias_": np.where(RNG.random(10) < 0.3, -1e4, 0).astype(np.float32)}
    with_it, without = (answers(made, library, **feeds) for library in (True, False))
    np.testing.assert_allclose(with_it, without, rtol=0, atol=FLOAT32 * max(1, np.abs(without).max()))


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("bounds", [[0, 3, 7], [0, 7], [0, 0, 4, 4, 7], [0, 2, 5]])
def test_attention_of_sequences_is_the_same(bounds, single):
    """Also where sequences are empty, and where tokens lie behind the last."""
    made = model(
        attention(bounds=True, bias=True),
        q=(FLOAT, ["a", "b", N]), k=(FLOAT, ["c", "d", N]), v=(FLOAT, ["c", "d", N]),
        bounds_=(ir.DataType.INT64, ["n"]), bias_=(FLOAT, ["t"]),
    )  # fmt: skip
    sizes = {"q": (len(bounds) - 1, 1) if single else (1, 7), "k": (1, 7), "v": (1, 7)}
    feeds = {name: RNG.standard_normal((*size, N)).astype(np.float32) for name, size in sizes.items()}
    feeds |= {"bounds_": np.array(bounds, np.int64), "bias_": RNG.standard_normal(7).astype(np.float32)}
    with_it, without = (answers(made, library, **feeds) for library in (True, False))
    np.testing.assert_allclose(with_it, without, rtol=0, atol=FLOAT32 * max(1, np.abs(without).max()))


def encoder(order, kind=np.float32, count=2):
    def build(op, x, bounds):
        absent = op.constant(np.zeros(0, np.float32), "absent")

        def part(rows, columns):
            scale = op.constant(np.full(columns, 0.002, np.float32), "scale") if kind == np.int8 else absent
            return [constant(op, rows, columns, kind=kind), scale, absent, constant(op, columns)]

        layers = []
        for _ in range(count):
            layers += [*part(N, 3 * N), *part(N, N), constant(op, N), constant(op, N)]
            layers += [*part(N, 2 * N), *part(2 * N, N), constant(op, N), absent]
        chosen = {"num_heads": HEADS, "scale": 0.0, "precision": "float32", "activation": "Gelu", "epsilon": 1e-5, "order": order}
        return op.Encoder(x, bounds, None if order == "post" else absent_bias(op), *layers, _domain=DOMAIN, **chosen)

    def absent_bias(op):
        return op.constant(np.zeros(7, np.float32), "bias")

    return build


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["post", "pre"])
def test_an_encoder_is_the_same(order, kind):
    made = model(encoder(order, kind), x=(FLOAT, [1, "t", N]), bounds=(ir.DataType.INT64, ["n"]))
    feeds = {"x": RNG.standard_normal((1, 7, N)).astype(np.float32), "bounds": np.array([0, 2, 7])}
    with_it, without = (answers(made, library, **feeds) for library in (True, False))
    # a byte or a bfloat16 that falls to the other side of a half in one layer is a step in the next
    tolerance = FLOAT32 if kind == np.float32 else 2e-2
    np.testing.assert_allclose(with_it, without, rtol=0, atol=tolerance)


def test_nodes_that_need_different_bodies_call_different_overloads():
    def build(op, x):
        weights = [constant(op, N, N), constant(op, N, N, kind=ml_dtypes.bfloat16)]
        one = op.Linear(x, weights[0], activation="", _domain=DOMAIN)
        two = op.Linear(one, weights[1], activation="", _domain=DOMAIN)
        three = op.Linear(two, weights[0], activation="Gelu", _domain=DOMAIN)
        return op.Linear(three, weights[0], activation="", _domain=DOMAIN)

    made = model(build, x=(FLOAT, ["a", "b", N]))
    called = [node.overload for node in made.graph]
    assert called[0] == called[3]
    assert len(set(called)) == len(made.functions) == 3


def test_taken_apart_it_is_of_standard_operators_and_computes_the_same():
    made = model(encoder("post"), x=(FLOAT, [1, "t", N]), bounds=(ir.DataType.INT64, ["n"]))
    feeds = {"x": RNG.standard_normal((1, 7, N)).astype(np.float32), "bounds": np.array([0, 2, 7])}
    wanted = answers(made, False, **feeds)
    functions.apart(made, ("Encoder",))
    assert {node.op_type for node in made.graph} == {"Linear", "Attention"}
    functions.apart(made)
    assert not any(node.domain for node in made.graph)
    assert not made.functions
    made.opset_imports.pop(DOMAIN)
    assert np.array_equal(answers(made, False, **feeds), wanted)


def test_every_operator_has_inputs_and_a_body():
    assert bodies.INPUTS.keys() == bodies.BODIES.keys()
    assert len(bodies.LAYER) == 20

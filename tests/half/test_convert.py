"""A float32 graph as float16: which nodes change, where casts stand, and what masks and small numbers become."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxfuse.half.convert import LARGEST, as_float16, key_of, to_bfloat16, to_float16
from onnxfuse.half.types import infer_types
from onnxfuse.io import onnx_file
from onnxfuse.runtime import open_runner
from tests.conftest import fill, parse

LAYER = """g (float[N,4] x, int64[N] ids, float[4,4] w, float[4] b, float[9,4] table) => (float[N,4] y, float[N,4] z) {
  rows = Gather (table, ids)
  more = MatMul (x, w)
  sum = Add (more, b)
  z = Add (sum, rows)
  y = Gelu (z)
}"""


def layer():
    return fill(parse(LAYER), w=(4, 4), b=(4,), table=(9, 4))


def types(model):
    infer_types(model)
    return {key_of(node): node.outputs[0].dtype for node in model.graph}


def run(model, tmp_path, name="model.onnx", **feeds):
    onnx_file.save(model, tmp_path / name)
    onnx.checker.check_model(tmp_path / name, full_check=True)
    return open_runner(tmp_path / name)(feeds)


FEEDS = {"x": np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4), "ids": np.array([0, 8, 3])}


def test_nodes_and_weights_become_float16_and_the_interface_stays(tmp_path):
    model = layer()
    wanted = run(layer(), tmp_path, "float.onnx", **FEEDS)
    assert to_float16(model) == 5
    assert {value.dtype for value in model.graph.initializers.values()} == {ir.DataType.FLOAT16}
    assert [value.dtype for value in (*model.graph.inputs, *model.graph.outputs)] == [
        ir.DataType.FLOAT,
        ir.DataType.INT64,
        ir.DataType.FLOAT,
        ir.DataType.FLOAT,
    ]
    assert sum(node.op_type == "Cast" for node in model.graph) == 3  # of one input and two outputs, one of which is read
    found = run(model, tmp_path, **FEEDS)
    for name, array in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], array, rtol=0, atol=4e-3 * np.abs(array).max())  # 5e-4 of each number, summed


def test_the_interface_in_float16_where_it_is_asked_for(tmp_path):
    model = layer()
    to_float16(model, io=True)
    assert not any(node.op_type == "Cast" for node in model.graph)
    found = run(model, tmp_path, x=FEEDS["x"].astype(np.float16), ids=FEEDS["ids"])
    assert {array.dtype for array in found.values()} == {np.dtype(np.float16)}


def test_nodes_that_are_kept_have_their_weights_in_float32(tmp_path):
    model = layer()
    assert to_float16(model, ["more", "sum"]) == 3
    seen = types(model)
    assert (seen["more"], seen["sum"], seen["rows"]) == (ir.DataType.FLOAT, ir.DataType.FLOAT, ir.DataType.FLOAT16)
    held = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert held == {"w": ir.DataType.FLOAT, "b": ir.DataType.FLOAT, "table_float16": ir.DataType.FLOAT16}
    run(model, tmp_path, **FEEDS)


def test_a_weight_that_nodes_of_both_types_read_is_there_twice(tmp_path):
    model = fill(parse("g (float[N,4] x, float[4,4] w) => (float[N,4] y) { a = MatMul (x, w)  y = MatMul (a, w) }"), w=(4, 4))
    to_float16(model, ["a"])
    assert {name: value.dtype for name, value in model.graph.initializers.items()} == {
        "w": ir.DataType.FLOAT,
        "w_float16": ir.DataType.FLOAT16,
    }
    run(model, tmp_path, x=FEEDS["x"])


def test_types_that_operators_do_not_have_stay(tmp_path):
    """Range has no float16; a model's own cast follows; comparisons, shapes and whole numbers are as they were."""
    model = parse(
        """g (float[N] x, float last) => (float[M] y, bool[N] z, int64[1] s) {
        zero = Constant <value = float {0}> ()
        one = Constant <value = float {1}> ()
        y = Range (zero, last, one)
        half = Constant <value = float {0.5}> ()
        z = Greater (x, half)
        s = Shape (x)
        }"""
    )
    to_float16(model)
    found = run(model, tmp_path, x=np.array([0.2, 0.7], np.float32), last=np.array(3, np.float32))
    assert found["y"].tolist() == [0, 1, 2] and found["z"].tolist() == [False, True] and found["s"].tolist() == [2]
    assert types(model)["y"] == ir.DataType.FLOAT


def test_casts_of_the_model_itself(tmp_path):
    model = parse("g (int64[N] m, float[N] x) => (float[N] y) { f = Cast <to = 1> (m)  y = Mul (f, x) }")
    to_float16(model)
    assert types(model)["f"] == ir.DataType.FLOAT16
    assert run(model, tmp_path, m=np.array([2, 0]), x=np.array([1.5, 3], np.float32))["y"].tolist() == [3, 0]


def test_graphs_inside_nodes_read_float32(tmp_path):
    model = parse(
        """g (float[2] x, bool c) => (float[2] y) {
        a = Mul (x, x)
        b = If (c) <then_branch = t () => (float[2] p) { p = Add (a, a) }, else_branch = e () => (float[2] q) { q = Identity (a) }>
        y = Neg (b)
        }"""
    )
    to_float16(model)
    for condition, wanted in ((True, [-2, -8]), (False, [-1, -4])):
        found = run(model, tmp_path, x=np.array([1, 2], np.float32), c=np.array(condition))
        assert found["y"].tolist() == wanted


def test_a_weight_that_inner_graphs_read_too_is_stored_once(tmp_path):
    model = fill(
        parse(
            """g (float[N,4] x, bool c, float[4,4] w) => (float[N,4] y) {
            a = MatMul (x, w)
            b = If (c) <then_branch = t () => (float[N,4] p) { p = MatMul (a, w) }, else_branch = e () => (float[N,4] q) { q = Identity (a) }>
            y = Neg (b)
            }"""
        ),
        w=(4, 4),
    )
    to_float16(model)
    assert {name: value.dtype for name, value in model.graph.initializers.items()} == {"w_float16": ir.DataType.FLOAT16}
    for condition in (True, False):
        assert np.isfinite(run(model, tmp_path, x=FEEDS["x"], c=np.array(condition))["y"]).all()


@pytest.mark.parametrize(
    ("number", "wanted"),
    [
        (float(np.finfo(np.float32).min), -LARGEST / 4),  # a mask's
        (-1e9, -LARGEST / 4),
        (-10_000.0, -10_000.0),
        (float("-inf"), float("-inf")),
        (1e9, LARGEST),
        (1e-12, 6e-8),  # what keeps a division from zero
        (-1e-12, -6e-8),
        (0.0, 0.0),
    ],
)
def test_numbers_that_do_not_fit(number, wanted):
    got = as_float16(np.array(number, np.float32))
    assert got.dtype == np.float16 and got.shape == () and float(got) == pytest.approx(wanted, rel=1e-2)


def test_weights_are_cut_to_what_fits_and_not_number_is_kept():
    got = as_float16(np.array([1e6, -1e6, np.nan, np.inf, 2], np.float32))
    assert got[:2].tolist() == [LARGEST, -LARGEST] and np.isnan(got[2]) and np.isinf(got[3]) and got[4] == 2


def test_bfloat16_is_for_weights_alone(tmp_path):
    model = fill(parse(LAYER.replace("9,4", "999,4")), w=(4, 4), b=(4,), table=(999, 4))
    wanted = run(model.clone(), tmp_path, "float.onnx", **FEEDS)
    assert to_bfloat16(model) == 1
    held = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert held == {"w": ir.DataType.FLOAT, "b": ir.DataType.FLOAT, "table_bfloat16": ir.DataType.BFLOAT16}
    found = run(model, tmp_path, **FEEDS)
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=8e-3 * np.abs(array).max())  # 4e-3 of a number

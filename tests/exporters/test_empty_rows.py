"""torch.export's masks: filled with -inf where weights are held against NaN, and nowhere else."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.exporters import empty_rows
from onnxfuse.runtime.sessions import open_session, run
from tests.conftest import parse

MASKED = (
    "m = Where(keep, zero, low)  a = Add(s, m)  p = Softmax<axis = -1>(a)  n = IsNaN(p)  y = Where(n, zero, p)",
    "m = Where(drop, low, zero)  a = Add(m, s)  p = Softmax<axis = -1>(a)  n = IsNaN(p)  y = Where(n, zero, p)",
)


def build(body, out="float[2,3] y"):
    text = f"g (float[2,3] s, bool[2,3] keep, bool[2,3] drop) => ({out}) <float zero = {{0.0}}, float low = {{-3.4028234663852886e38}}> {{ {body} }}"
    return parse(text)


@pytest.mark.parametrize("body", MASKED)
def test_a_query_without_a_key_gives_zeros(body):
    model = build(body)
    empty_rows.restore(model)
    keep = np.array([[True, False, True], [False, False, False]])
    feeds = {"s": np.ones((2, 3), dtype=np.float32), "keep": keep, "drop": ~keep}
    (got,) = run(open_session(ir.to_proto(model).SerializeToString(), optimize=False), feeds).values()
    np.testing.assert_array_equal(got, [[0.5, 0, 0.5], [0, 0, 0]])


@pytest.mark.parametrize(
    ("body", "out"),
    [
        (MASKED[0].replace("low)", "zero)"), "float[2,3] y"),
        (MASKED[0].replace("n = IsNaN(p)  y = Where(n, zero, p)", "y = Relu(p)"), "float[2,3] y"),
        (MASKED[0] + "  z = Relu(m)", "float[2,3] y, float[2,3] z"),
        (MASKED[0], "float[2,3] y, float[2,3] m"),
        ("m = Where(keep, zero, low)  y = Relu(m)", "float[2,3] y"),
    ],
)
def test_other_fills_stay(body, out):
    model = build(body, out)
    empty_rows.restore(model)
    assert empty_rows.NAME not in model.graph.initializers

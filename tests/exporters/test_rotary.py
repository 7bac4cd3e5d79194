"""RotaryEmbedding as torch.export writes it, for every row of a batch."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.errors import ModelError
from onnxfuse.exporters import rotary
from onnxfuse.runtime.sessions import open_session, run
from tests.conftest import ops, parse

TURNED = """g (float[B,2,S,4] x, float[1,S,2] c, float[1,S,2] s) => (float[B,2,S,4] y) {
    y = RotaryEmbedding<interleaved = 0>(x, c, s) }"""
BY_POSITION = """g (float[B,2,S,4] x, float[9,2] c, float[9,2] s, int64[B,S] at) => (float[B,2,S,4] y) {
    y = RotaryEmbedding<interleaved = 0>(x, c, s, at) }"""


def test_all_rows_are_turned_by_the_tables_that_are_there_once():
    rng = np.random.default_rng(0)
    x, angles = rng.standard_normal((3, 2, 5, 4)).astype(np.float32), rng.standard_normal((1, 5, 2)).astype(np.float32)
    feeds = {"x": x, "c": np.cos(angles), "s": np.sin(angles)}
    model = parse(TURNED)
    with pytest.raises(ModelError, match="cos_cache"):
        run(open_session(ir.to_proto(model).SerializeToString()), feeds)
    rotary.widen(model)
    (first, second), (cos, sin) = np.split(x, 2, axis=-1), (feeds["c"][:, None], feeds["s"][:, None])
    wanted = np.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)
    np.testing.assert_allclose(run(open_session(ir.to_proto(model).SerializeToString()), feeds)["y"], wanted, rtol=0, atol=1e-6)


def test_tables_that_positions_index_stay():
    model = parse(BY_POSITION)
    rotary.widen(model)
    assert ops(model) == ["RotaryEmbedding"]

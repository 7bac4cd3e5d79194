"""Padding removal where a batch is one row, and where batches change from call to call."""

import re

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.fusions.unpad import Padding, unpad
from onnxfuse.runtime import Settings, open_runner
from onnxfuse.verify.masks import MASKS, mask_of
from tests.conftest import analysis_of, ops
from tests.fusions.test_unpad import CONSTANTS, NODES, model, outputs


def sized(model: ir.Model, batch: int) -> ir.Model:
    """The same for batches of so many rows."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape([batch if dim == ir.SymbolicDim("B") else dim for dim in value.shape.dims])
    return model


POOLED = {
    "attention": """q0 = Gather<axis = 1>(q, ids)  m0 = Gather<axis = -2>(m, ids)
    a0 = Attention<q_num_heads = 2, kv_num_heads = 2>(q0, k, v, m0)  a = Reshape(a0, flat)""",
    "out": "p = MatMul(a, o)  h0 = Gather<axis = 1>(h, first)  s = Sum(p, h0)",
    "head": "y = Identity(e)",
    "constants": CONSTANTS + ", int64[1] ids = {0}, int64[2] flat = {0, 8}",
}


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("edits", [{}, POOLED], ids=["every token asks", "the first one asks"])
def test_the_only_row_of_a_batch_is_not_moved(edits):
    """Where the graph says that there is one: its real tokens stay in their order, and attention reads them as they stand."""
    before, after = (sized(model(**edits), 1) for _ in range(2))
    assert unpad(after, analysis_of(after)) == Padding()
    (attention,) = (node for node in after.graph if node.op_type == "Attention")
    assert [value.producer().op_type for value in attention.inputs[1:3]] == ["Split", "Split"]
    assert not {"ScatterElements", "ArgMin", "Min", "Less"} & set(ops(after))
    attention.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    after.graph.outputs.append(attention.outputs[0])
    for kind in MASKS:
        mask = mask_of(kind, 1, 9).astype(np.int64)
        wanted, got = outputs(before, mask)["y"], outputs(after, mask)
        assert np.isfinite(got["y"]).all()
        assert got[attention.outputs[0].name].shape[1] == (1 if edits else max(1, np.maximum(mask, np.arange(9) == 0).sum()))
        if mask.any():
            np.testing.assert_allclose(got["y"], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


SEQUENCE = ((1, 7), (1, 7), (1, 16), (8, 16), (1, 16), (8, 16), (3, 5), (1, 2))


@pytest.mark.parametrize("runtime", ["ort", "openvino"])
def test_batches_may_change_from_call_to_call(runtime, tmp_path):
    """Also right in the first call of each: OpenVINO 2026.4 gives others behind an If, as its memory moves then."""
    if runtime == "openvino":
        pytest.importorskip("openvino")
    layers = "  ".join(NODES[name] for name in ("norm", "qkv", "attention", "out", "last"))
    again = layers
    for name in ("h", "t", "q", "k", "v", "a", "p", "s", "e"):
        again = re.sub(rf"\b{name}\b", f"{name}2", again)
    again = re.sub(r"LayerNormalization<axis = -1>\(x,", "LayerNormalization<axis = -1>(e,", again)
    edits = {"last": NODES["last"] + "  " + again, "head": "y = Gather<axis = 1>(e2, first)"}
    before, after = model(**edits), model(**edits)
    assert unpad(after, analysis_of(after)) == Padding()
    ir.save(after, tmp_path / "after.onnx")
    runner = open_runner(tmp_path / "after.onnx", Settings(runtime))
    for batch, length in SEQUENCE:
        mask = mask_of("right" if batch == 1 else "holes", batch, length).astype(np.int64)
        x = np.random.default_rng(0).standard_normal((batch, length, 8)).astype(np.float32)
        np.testing.assert_allclose(runner({"x": x, "attention_mask": mask})["y"], outputs(before, mask)["y"], rtol=0, atol=1e-4)


def test_index_arithmetic_is_short():
    """A batch of one row pays for each of its operators as a batch of many does."""
    before, after = model(), model()
    assert unpad(after, analysis_of(after)) == Padding()
    assert len(after.graph) - len(before.graph) <= 108

"""Queries without a key get zeros from PyTorch's attention; torch.export's graph is brought to do the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

NAME = "minus_infinity"


def restore(model: ir.Model) -> None:
    """Fill masks with -inf where weights that are NaN are repaired: they are NaN, and so zero, where no key is left.

    torch.onnx writes the lowest finite number there, which spreads such a query over all keys alike, and its repair in vain.

    Source: PyTorch's scaled_dot_product_attention (a boolean mask fills with -inf; a row of nothing else gives zeros).
    """
    masks = [node for node in model.graph if node.op_type == "Where" and _repaired(node)]
    found = [(node, at) for node in masks for at in (1, 2) if _lowest(node, at)]
    if not found:
        return
    fill = ir.Value(name=NAME, const_value=ir.tensor(np.array(-np.inf, dtype=np.float32), name=NAME))
    fill.dtype, fill.shape = ir.DataType.FLOAT, ir.Shape([])
    model.graph.register_initializer(fill)
    for node, at in found:
        node.replace_input_with(at, fill)


def _repaired(mask: ir.Node) -> bool:
    """Whether a mask is added to scores alone, whose softmax is held against NaN."""
    bias = mask.outputs[0]
    weights = [softmax for add in bias.consumers() for softmax in add.outputs[0].consumers()]
    added = bool(weights) and not bias.is_graph_output() and all(add.op_type == "Add" for add in bias.consumers())
    return added and all(node.op_type == "Softmax" and _checked(node.outputs[0]) for node in weights)


def _checked(weights: ir.Value) -> bool:
    return any(reader.op_type == "IsNaN" for reader in weights.consumers())


def _lowest(node: ir.Node, at: int) -> bool:
    tensor = ir.convenience.get_const_tensor(node.inputs[at])  # type: ignore[arg-type]
    lowest = np.finfo(np.float32).min
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and tensor.size == 1 and bool(tensor.numpy() == lowest)

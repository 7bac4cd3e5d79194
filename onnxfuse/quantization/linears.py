"""What can be quantized in a graph: linear layers (matrix products with a constant weight), and embedding tables."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxfuse.errors import ModelError
from onnxfuse.quantization.operands import is_integer
from onnxfuse.rewrite.analysis import is_constant
from onnxfuse.rewrite.attributes import attribute

SMALLEST = 1 << 14
"""Weights with fewer elements stay float: a classifier's few columns cost nothing and decide the result."""

AROUND = {"Add", "Reshape", "Split", "Gather", "Sum", "Mul"}
"""Operators that may stand between a linear layer and what tells its role."""


@dataclass(frozen=True, eq=False)
class Linear:
    """``node`` computes y [..., N] = x [..., K] @ W [K, N]; ``weight`` is W as it is stored, or W transposed (``swapped``).

    ``role`` says which linear layer of which layer it is, for people.
    """

    node: ir.Node
    weight: ir.Value
    swapped: bool
    role: str

    @property
    def name(self) -> str:
        """The value it computes: unique in a graph, and the same in a graph's clones."""
        return self.node.outputs[0].name or ""

    @property
    def input(self) -> ir.Value:
        value = self.node.inputs[0]
        assert value is not None
        return value

    def matrix(self) -> np.ndarray:
        """W [K, N], float32."""
        assert self.weight.const_value is not None
        stored = self.weight.const_value.numpy()
        return stored.T if self.swapped else stored

    @property
    def shared(self) -> bool:
        """Whether something else reads the weight too, an embedding for instance."""
        uses = [(self.node, 1)] if not self.swapped else [(self.node.inputs[1].producer(), 0)]  # type: ignore[union-attr]
        return list(self.weight.uses()) != uses or (self.swapped and len(self.node.inputs[1].uses()) > 1)  # type: ignore[union-attr]


def stored_in(model: ir.Model) -> str:
    """The precision of a model's coarsest numbers: a key of ``tolerances.OF_PRECISION``."""
    if integer_node(model) is not None:
        return "int8"
    held = {value.dtype for value in (*model.graph.initializers.values(), *model.graph.inputs)}
    return "bf16" if ir.DataType.BFLOAT16 in held else "fp16" if ir.DataType.FLOAT16 in held else "fp32"


def integer_node(model: ir.Model) -> ir.Node | None:
    """The first operator that makes the model an int8 one; None for a float model."""
    return next((node for node in model.graph.all_nodes() if is_integer(node)), None)


def require_float(model: ir.Model) -> None:
    """Raises ModelError when the model is int8 or fp16 already."""
    if (node := integer_node(model)) is not None:
        raise ModelError(
            f"the model is int8 already ({node.op_type} at {node.outputs[0].name}); quantize the float model, or "
            "make its types fast with --retype"
        )
    for value in model.graph.initializers.values():
        if value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
            raise ModelError(f"weight {value.name} is {value.dtype.name}, wanted FLOAT; start from the model in float32")


LAYOUT = {"Cast", "Unsqueeze", "Squeeze", "Reshape", "Expand"}
"""Operators behind which a zero is a zero still."""


def find_linears(graph: ir.Graph) -> list[Linear]:
    """The linear layers worth quantizing, in the graph's order.

    Not those behind a mean over tokens whose number nothing holds from being zero: a row without a token is NaN there, and a
    scale that all rows of a batch share would carry it to the others.
    """
    found, layer, undefined = [], 0, set[ir.Value]()
    for node in graph:
        if _divides_by_count(node) or not undefined.isdisjoint(value for value in node.inputs if value is not None):
            undefined.update(node.outputs)
            continue
        if node.op_type in ("Attention", "MultiHeadAttention", "Softmax"):
            layer += 1
        if node.op_type == "MatMul" and not node.domain and (stored := _weight_of(node)) is not None:
            found.append(Linear(node, *stored, _role(node, layer)))
    return found


def _divides_by_count(node: ir.Node) -> bool:
    """Whether a node divides by the sum of an input of the graph, as by the number of tokens that a mask lets in."""
    total = _laid_out(node.inputs[1]) if node.op_type == "Div" and not node.domain else None
    producer = None if total is None else total.producer()
    summed = _laid_out(producer.inputs[0]) if producer is not None and producer.op_type == "ReduceSum" else None
    return summed is not None and summed.is_graph_input()


def _laid_out(value: ir.Value | None) -> ir.Value | None:
    """What a value was before its type and shape were changed."""
    while value is not None and (producer := value.producer()) is not None and producer.op_type in LAYOUT:
        value = producer.inputs[0]
    return value


def why_none(model: ir.Model) -> str:
    """Why a model has no linear layer worth quantizing, for people."""
    big = [node for node in model.graph.all_nodes() if node.op_type == "MatMul" and not node.domain and _is_big(node.inputs[1])]
    inside = [node for node in big if node.graph is not model.graph]
    if inside:
        return f"its {len(inside)} matrix products stand in bodies of If, Loop or Scan, which stay in float; export without them"
    given = [value.name for node in big if (value := node.inputs[1]) is not None and not is_constant(value)]
    if given:
        return f"callers may override its weights, which stand among the inputs ({given[0]}); take them out"
    return f"it has no matrix product with a constant float weight of {SMALLEST} numbers or more"


def _is_big(weight: ir.Value | None) -> bool:
    """Whether this is a weight of a size worth quantizing, constant or not."""
    tensor = None if weight is None else weight.const_value
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) == 2 and tensor.size >= SMALLEST


def find_embeddings(model: ir.Model) -> list[ir.Node]:
    """The look-ups in embedding tables."""
    return [
        node
        for node in model.graph
        if node.op_type == "Gather" and not node.domain and _is_embedding(node, model.opset_imports[""])
    ]


def _weight_of(node: ir.Node) -> tuple[ir.Value, bool] | None:
    """The constant matrix of a linear layer and whether it stands transposed; None when there is none worth it."""
    value, swapped = node.inputs[1], False
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Transpose" and list(producer.attributes.get_ints("perm", [1, 0])) == [1, 0]:
        value, swapped = producer.inputs[0], True
    return (value, swapped) if value is not None and _is_matrix(value) else None


def _is_embedding(node: ir.Node, opset: int) -> bool:
    value = node.inputs[0]
    return value is not None and _is_matrix(value) and attribute(node, "axis", opset) == 0


def _is_matrix(value: ir.Value) -> bool:
    return is_constant(value) and _is_big(value)


def _role(node: ir.Node, attentions: int) -> str:
    """For instance "layer 3 feed-forward out"; told from what stands before and behind."""
    feeds = _near(node.inputs[0].producer() if node.inputs[0] is not None else None, backwards=True)
    reads = {_near(user, backwards=False) for value in node.outputs for user, _ in value.uses()}
    if feeds & {"Attention", "MultiHeadAttention"}:
        return f"layer {attentions - 1} attention out"
    if feeds & {"Gelu", "BiasGelu"}:
        return f"layer {attentions - 1} feed-forward out"
    if any(near & {"Gelu", "BiasGelu"} for near in reads):
        return f"layer {attentions - 1} feed-forward in"
    if any(near & {"Attention", "MultiHeadAttention"} for near in reads):
        return f"layer {attentions} queries, keys, values"
    return "before the layers" if not attentions else f"behind attention {attentions - 1}"


def _near(node: ir.Node | None, *, backwards: bool) -> frozenset[str]:
    """The operator at the end of a chain of those in ``AROUND``, upwards or downwards."""
    for _ in range(6):
        if node is None or node.op_type not in AROUND:
            break
        if backwards:
            node = node.inputs[0].producer() if node.inputs[0] is not None else None
        else:
            node = next((user for value in node.outputs for user, _ in value.uses()), None)
    return frozenset() if node is None else frozenset({node.op_type})

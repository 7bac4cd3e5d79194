"""Whether a graph could do harm when a runtime opens or runs it: a walk over its nodes, which runs and allocates nothing.

What encoders are made of passes. What loops, divides whole numbers by what may be 0, makes tensors of sizes that large constants
say, or is not known here, is worth a trial in a process of its own (``runtime.trial``).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterable, Mapping

import numpy as np
import onnx
import onnx.numpy_helper

from onnxfuse.io import door
from onnxfuse.io.repair import nodes

_PLAIN = """
Abs Add And ArgMax ArgMin Attention AveragePool BatchNormalization BiasGelu BiasSplitGelu BitwiseAnd BitwiseNot BitwiseOr Cast
CastLike Ceil Clip Compress Concat Constant Conv ConvInteger Cos Cosh CumSum DequantizeLinear DynamicQuantizeLinear
DynamicQuantizeMatMul Dropout Elu EmbedLayerNormalization Equal Erf Exp FastGelu Flatten Floor FusedConv FusedGemm FusedMatMul
Gather GatherElements GatherND Gelu Gemm GlobalAveragePool Greater GreaterOrEqual HardSigmoid HardSwish Hardmax Identity
If InstanceNormalization IsInf IsNaN LayerNormalization LeakyRelu Less LessOrEqual Log LogSoftmax LpNormalization MatMul
MatMulInteger MatMulInteger16 MatMulIntegerToFloat MatMulNBits Max MaxPool Mean Min Mish Mul MultiHeadAttention Neg NonZero
Not Or PRelu PackedAttention PackedMultiHeadAttention Pow QAttention QGemm QLinearAdd QLinearMatMul QLinearMul
QLinearSigmoid QLinearSoftmax QOrderedMatMul
QuantizeLinear QuickGelu RMSNormalization Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu RemovePadding Reshape RestorePadding RotaryEmbedding Round ScatterElements
ScatterND Selu Shape Sigmoid Sign SimplifiedLayerNormalization Sin Sinh Size SkipLayerNormalization
SkipSimplifiedLayerNormalization Slice Softmax Softplus Softsign Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu
Transpose Trilu Unsqueeze Where Xor
"""
PLAIN = frozenset(_PLAIN.split())
"""Operators whose results are no larger than what they read together, and that no values make fail."""

MAKERS = {"ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "Range": (0, 1, 2), "Pad": (1,), "OneHot": (1,), "TopK": (1,)}
"""Operators that make tensors of sizes that they read, and where."""

DIVIDERS = ("Div", "Mod")

_POSITIVE = (
    "num_heads kv_num_heads q_num_heads head_size group strides dilations bits block_size blocksize kernel_shape num_outputs"
)
POSITIVE = frozenset(_POSITIVE.split())
"""Attributes that a kernel may divide by."""

MOST = 1 << 14
"""Elements that constants may ask for in one made tensor: a square of these, an outer product, is what a runtime still bears."""

LONG = 1 << 12
"""An axis from which a tensor with an axis of 1 may make a large outer product."""

STEPS = 64
"""Operators behind one size: exporters need a dozen."""


def suspicion(proto: onnx.ModelProto) -> str:
    """Why a graph is worth a trial, in words that follow "it"; empty when nothing tells."""
    every = list(nodes(proto))
    known = PLAIN | MAKERS.keys() | set(DIVIDERS) | {function.name for function in proto.functions}  # whose nodes are among these
    return next(filter(None, (_oddity(node, known) for node in every)), "") or _of_sizes(proto, every)


def _oddity(node: onnx.NodeProto, known: Collection[str]) -> str:
    """What a node shows by itself."""
    if node.op_type not in known:
        return f"has {node.op_type}"
    for attribute in node.attribute:
        if attribute.name in POSITIVE and min([attribute.i, *attribute.ints] if not attribute.ints else attribute.ints) < 1:
            return f"has {attribute.name} below 1 in {node.op_type}"
    return ""


def _of_sizes(proto: onnx.ModelProto, every: list[onnx.NodeProto]) -> str:
    """What nodes show together with constants and with what makes their inputs."""
    constants = _constants(proto, every)
    makers = {name: node for node in every for name in node.output}
    doubling, dividers = 0, []
    for node in every:
        if node.op_type in MAKERS:
            asked = _asked([node.input[at] for at in MAKERS[node.op_type] if at < len(node.input)], makers, constants)
            if asked > MOST:
                return f"has {node.op_type} of large sizes"
        elif node.op_type in DIVIDERS and len(node.input) == 2:
            dividers.append(node)
        doubling += node.op_type == "Concat" and len(set(node.input)) < len(node.input)
    if doubling > 8:
        return "doubles tensors again and again"
    if any(1 in tensor.dims and max(tensor.dims) > LONG for tensor in proto.graph.initializer):
        return "has a long weight that broadcasts"
    return _of_division(proto, [node for node in dividers if not _is_positive(node.input[1], makers, constants)], constants)


def _constants(proto: onnx.ModelProto, every: Iterable[onnx.NodeProto]) -> dict[str, np.ndarray]:
    """Small constants of whole numbers, by name."""
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    found: dict[str, np.ndarray] = {}
    for node in every:
        if node.op_type == "Constant" and node.output:
            for attribute in node.attribute:
                if attribute.name == "value":
                    tensors[node.output[0]] = attribute.t
                elif attribute.name in ("value_int", "value_ints"):
                    found[node.output[0]] = np.array(attribute.ints or [attribute.i])
    for name, tensor in tensors.items():
        if math.prod(tensor.dims) <= STEPS and tensor.data_location != onnx.TensorProto.EXTERNAL and tensor.data_type:
            with door.reading(f"weight {name!r}", "a tensor"):
                array = onnx.numpy_helper.to_array(tensor)
            if array.dtype.kind in "iuf":
                found[name] = array
    return found


def _asked(names: Iterable[str], makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, np.ndarray]) -> float:
    """The product of the numbers behind sizes; infinite where too much is behind them.

    Sizes of tensors count as nothing, and of a vector that a number is gathered from (``picked``) the largest does.
    """
    product, waiting, seen = 1.0, [(name, False) for name in names], set[str]()
    while waiting:
        name, picked = waiting.pop()
        if name in seen or not name:
            continue
        seen.add(name)
        if len(seen) > STEPS:
            return math.inf
        if name in constants:
            product *= _magnitude(constants[name], picked=picked)
        elif name in makers and makers[name].op_type not in ("Shape", "Size"):
            maker = makers[name]
            places = (
                maker.input[:1] if maker.op_type in ("Gather", "Slice") else maker.input
            )  # what is behind is where, not how many
            waiting += [(behind, picked or maker.op_type == "Gather") for behind in places]
    return product


def _magnitude(array: np.ndarray, *, picked: bool) -> float:
    """The product of an array's numbers, or the largest of them; what is below 1 counts as 1."""
    numbers = np.maximum(np.abs(array.astype(np.float64)), 1)
    return float(numbers.max(initial=1) if picked else np.prod(numbers))


CARRY = frozenset(("Cast", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Unsqueeze"))
"""Operators that give numbers of their first input."""

DEPTH, PARTS = 12, 3
"""Operators behind a divisor, and what each may be made of: the walk takes at most one to the power of the other."""


def _is_positive(name: str, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, np.ndarray], depth: int = 0) -> bool:
    """Whether all numbers of a value are 1 or more: constants, sizes of tensors that are not empty, and what is made of these."""
    if name in constants:
        return bool((constants[name] >= 1).all())
    if name not in makers or depth > DEPTH:
        return False
    maker = makers[name]
    if maker.op_type in ("Shape", "Size"):
        return True
    if maker.op_type in CARRY:
        return _is_positive(maker.input[0], makers, constants, depth + 1)
    if maker.op_type in ("Add", "Concat", "Max", "Mul") and len(set(maker.input)) <= PARTS:
        return all(_is_positive(each, makers, constants, depth + 1) for each in set(maker.input))
    return _is_rounded_up(maker, makers, constants, depth + 1)


def _is_rounded_up(
    node: onnx.NodeProto, makers: Mapping[str, onnx.NodeProto], constants: Mapping[str, np.ndarray], depth: int
) -> bool:
    """Whether a node is a division of positive numbers that rounds up: (a + b - 1) / b."""
    less = makers.get(node.input[0]) if node.op_type == "Div" else None
    total = makers.get(less.input[0]) if less is not None and less.op_type == "Sub" else None
    if less is None or total is None or total.op_type != "Add" or node.input[1] not in total.input:
        return False
    one = constants.get(less.input[1])
    return (
        one is not None and bool((one == 1).all()) and all(_is_positive(each, makers, constants, depth) for each in total.input)
    )


def _of_division(proto: onnx.ModelProto, dividers: list[onnx.NodeProto], constants: Mapping[str, np.ndarray]) -> str:
    """Processors trap where whole numbers are divided by 0, and the lowest by -1."""
    weights = {tensor.name for tensor in proto.graph.initializer if tensor.data_type in (1, 10, 11, 16)}
    open_ended = []
    for node in dividers:
        by = node.input[1] if len(node.input) > 1 else ""
        known = constants.get(by)
        if known is not None and (known.dtype.kind == "f" or not np.isin(known, (0, -1)).any()):
            continue
        if by not in weights:
            open_ended.append(node)
    if not open_ended:
        return ""
    kinds = _kinds(proto)
    whole = next((node for node in open_ended if kinds.get(node.input[1]) not in FLOATS), None)
    return "" if whole is None else f"has a {whole.op_type} of whole numbers by what may be 0 or -1"


FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def _kinds(proto: onnx.ModelProto) -> dict[str, int]:
    """The types of values, as ONNX infers them; none where it fails."""
    try:
        graph = onnx.shape_inference.infer_shapes(proto).graph
    except Exception:  # noqa: BLE001 - nothing is known, which leads to a trial
        return {}
    values = itertools.chain(graph.value_info, graph.input, graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values} | {
        tensor.name: tensor.data_type for tensor in graph.initializer
    }

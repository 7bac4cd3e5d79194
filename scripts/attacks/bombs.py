"""Small graphs that want much: time, memory, depth; and operators with values that their kernels or shape functions trip over."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HEADER = '<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>\n'
SIGNATURE = "g (int64[batch_size,sequence_length] input_ids, int64[batch_size,sequence_length] attention_mask) => (float[n] last)"


def model(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEADER + SIGNATURE + text)


ENDS = "flat = Cast <to = 1> ({made}) minus = Constant <value_ints = [-1]> () last = Reshape (flat, minus)"
"""``made`` as the output."""


def _body(lines: str, made: str = "y", constants: str = "") -> str:
    return f"{f'<{constants}>' if constants else ''} {{ {lines} {ENDS.format(made=made)} }}"


def texts() -> dict[str, str]:  # long: a table, a line for each
    """What follows the signature, by name."""
    big = "int64[2] size = {100000, 100000}"
    doubled = " ".join(f"c{level + 1} = Concat <axis = 0> (c{level}, c{level})" for level in range(40))
    summed = " ".join(f"c{level + 1} = Add (c{level}, c{level})" for level in range(3000))
    squared = " ".join(f"c{level + 1} = Concat <axis = 0> (c{level}, c{level}, c{level}, c{level})" for level in range(13))
    products = "c0 = ConstantOfShape (square) " + " ".join(f"c{level + 1} = MatMul (c{level}, c{level})" for level in range(30))
    return {
        "constant-of-shape": _body("y = ConstantOfShape (size)", constants=big),
        "constant-read": _body("z = ConstantOfShape (size) y = ReduceSum <keepdims = 0> (z)", constants=big),
        "range": _body("y = Range (a, b, c)", constants="int64 a = {0}, int64 b = {1000000000000}, int64 c = {1}"),
        "range-zero": _body("y = Range (a, b, c)", constants="int64 a = {0}, int64 b = {10}, int64 c = {0}"),
        "range-float": _body("y = Range (a, b, c)", constants="float a = {0}, float b = {1e30}, float c = {1e-30}"),
        "expand": _body("y = Expand (a, size)", constants=f"float a = {{1}}, {big}"),
        "tile": _body("y = Tile (a, size)", constants=f"float[1,1] a = {{1}}, {big}"),
        "pad": _body("y = Pad (a, pads)", constants="float[1] a = {1}, int64[2] pads = {0, 10000000000}"),
        "one-hot": _body("y = OneHot <axis = 0> (a, d, v)", constants="int64[3] a = {1,2,3}, int64 d = {10000000000}, float[2] v = {0,1}"),
        "resize": _body("y = Resize (a, , , s)", constants="float[1,1,2,2] a = {1,2,3,4}, int64[4] s = {1,1,100000,100000}"),
        "double": _body(f"c0 = Identity (a) {doubled} y = Identity (c40)", constants="float[2] a = {1,2}"),
        "double-shape": _body(f"{doubled} y = Shape (c40)".replace("(c0, c0)", "(a, a)"), constants="float[2] a = {1,2}"),
        "quadruple": _body(f"c0 = Identity (a) {squared} y = Identity (c13)", constants="float[4] a = {1,2,3,4}"),
        "sum-chain": _body(f"c0 = Cast <to = 1> (input_ids) {summed} y = Identity (c3000)"),
        "products": _body(f"{products} y = Identity (c30)", constants="int64[2] square = {3000, 3000}"),
        "loop": _body(
            "t = Constant <value_int = 1000000000000> () e = Constant <value = bool {1}> () "
            "y = Loop (t, e, s) <body = b (int64 i, bool k, float v) => (bool k2, float v2) { k2 = Identity (k) v2 = Sin (v) }>",
            constants="float s = {1}",
        ),
        "loop-scan": _body(
            "t = Constant <value_int = 100000000> () "
            "y = Loop (t, , ) <body = b (int64 i, bool k) => (bool k2, int64 o) { k2 = Identity (k) o = Identity (i) }>"
        ),
        "while": _body(
            "e = Constant <value = bool {1}> () "
            "y = Loop (, e, s) <body = b (int64 i, bool k, float v) => (bool k2, float v2) { k2 = Identity (k) v2 = Sin (v) }>",
            constants="float s = {1}",
        ),
        "random": _body("y = RandomNormal <shape = [100000, 100000]> ()"),
        "eye": _body("z = ConstantOfShape (size) y = EyeLike (z)", constants="int64[2] size = {60000, 60000}"),
        "cumsum": _body("z = ConstantOfShape (size) y = CumSum (z, a)", constants="int64[1] size = {900000000}, int64 a = {0}"),
        "nonzero": _body("z = ConstantOfShape <value = float[1] {1}> (size) y = NonZero (z)", constants="int64[1] size = {200000000}"),
        "top-k": _body("y, i = TopK (a, k)", constants="float[3] a = {1,2,3}, int64[1] k = {4000000000}"),
        "outer": _body(
            "y = Mul (u, v)".replace("u, v", "x, w"),
            constants="int64[2] s = {100000, 1}, int64[2] r = {1, 100000}",
        ).replace("{ y", "{ x = ConstantOfShape (s) w = ConstantOfShape (r) y"),
        "outer-where": _body(
            "x = ConstantOfShape (s) w = ConstantOfShape (r) c = Equal (x, w) y = Where (c, x, w)",
            constants="int64[2] s = {60000, 1}, int64[2] r = {1, 60000}",
        ),
        "split-many": _body(f"{', '.join(f's{at}' for at in range(2000))} = Split (a) y = Identity (s1)", constants="float[2000] a"),
        "name-long": _body(f"{'n' * 200_000} = Cast <to = 1> (input_ids) y = Identity ({'n' * 200_000})"),
        "ids-expand": _body("s = Concat <axis = 0> (size) z = Cast <to = 1> (input_ids) w = ReduceMax <keepdims = 0> (z) y = Expand (w, s)", constants=big),
        "batch-square": _body("z = Cast <to = 1> (input_ids) r = Reshape (z, m) y = MatMul (r, t)".replace("t)", "u)"), constants="int64[2] m = {-1, 1}, int64[2] q = {1, 300000000}").replace("y = MatMul", "u = ConstantOfShape (q) y = MatMul"),
        "einsum": _body("y = Einsum <equation = \"ab,cd,ef->abcdef\"> (a, a, a)", constants="float[2000,2000] a"),
        "string-cast": _body("z = Cast <to = 8> (input_ids) y = Cast <to = 1> (z)"),
    }  # fmt: skip


INT, FLOAT, BOOL, TEXT = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL, TensorProto.STRING
ODD = {
    "scalar": np.float32(1),
    "empty": np.zeros((0, 3), np.float32),
    "vector": np.ones(3, np.float32),
    "deep": np.ones((1,) * 9, np.float32),
    "whole": np.array([0, 0, -(2**63)], np.int64),
    "min": np.array([-1], np.int64),
    "truth": np.array([True]),
    "half": np.ones((2, 3), np.float16),
}
"""Operands of every operator in turn."""

OPERATORS = {
    "Add": 2, "Sub": 2, "Mul": 2, "Div": 2, "Mod": 2, "Pow": 2, "MatMul": 2, "Gemm": 3, "Gather": 2, "Reshape": 2, "Expand": 2,
    "Slice": 4, "Split": 2, "Concat": 2, "Transpose": 1, "Squeeze": 2, "Unsqueeze": 2, "Softmax": 1, "ReduceMean": 1,
    "ReduceSum": 2, "Where": 3, "Shape": 1, "ConstantOfShape": 1, "LayerNormalization": 3, "Erf": 1, "Sqrt": 1, "Flatten": 1,
    "GatherND": 2, "ScatterND": 3, "Tile": 2, "Range": 3, "CumSum": 2, "OneHot": 3, "Conv": 2, "DequantizeLinear": 3,
    "QuantizeLinear": 3, "MatMulInteger": 2, "DynamicQuantizeLinear": 1, "Clip": 3, "Trilu": 2, "NonZero": 1, "TopK": 2, "Pad": 2,
    "BatchNormalization": 5, "BitShift": 2, "IsNaN": 1, "Size": 1, "Neg": 1, "Einsum": 2,
}  # fmt: skip
MICROSOFT = {
    "Attention": 4, "MultiHeadAttention": 3, "EmbedLayerNormalization": 7, "SkipLayerNormalization": 4, "FusedMatMul": 2, "Gelu": 1,
    "FastGelu": 2, "BiasGelu": 2, "QAttention": 5, "QuantizeWithOrder": 2, "DynamicQuantizeMatMul": 3, "MatMulNBits": 3,
    "RemovePadding": 2, "RestorePadding": 2, "PackedAttention": 5, "FusedGemm": 3, "NhwcConv": 2, "GroupQueryAttention": 7,
}  # fmt: skip

ATTRIBUTES: dict[str, tuple[tuple[str, object], ...]] = {
    "axis": (("axis", 99), ("axis", -99)),
    "perm": (("perm", [0, 0]), ("perm", [7, -1])),
    "heads": (("num_heads", 0), ("num_heads", -1), ("num_heads", 2**40)),
    "bits": (("bits", 0),),
    "epsilon": (("epsilon", float("nan")),),
}
WITH = {
    "axis": ("Gather", "Concat", "Softmax", "LayerNormalization", "Split", "Flatten", "DequantizeLinear", "OneHot"),
    "perm": ("Transpose",),
    "heads": ("Attention", "MultiHeadAttention", "QAttention", "PackedAttention"),
    "bits": ("MatMulNBits",),
    "epsilon": ("LayerNormalization", "SkipLayerNormalization", "EmbedLayerNormalization"),
}


def nodes() -> dict[str, Callable[[], onnx.ModelProto]]:
    """Models of one odd node each: on constants, and on what follows from the ids."""
    found: dict[str, Callable[[], onnx.ModelProto]] = {}
    for at, (op, count) in enumerate({**OPERATORS, **MICROSOFT}.items()):
        kinds = list(ODD)
        for step in (0, 3, 5):
            kind, other = kinds[(at + step) % len(kinds)], kinds[(at + 2 * step + 1) % len(kinds)]
            found[f"{op}-{kind}-{other}"] = lambda op=op, count=count, kind=kind, other=other: _node(op, count, kind, other, {})
        for group, operators in WITH.items():
            for name, value in ATTRIBUTES[group] if op in operators else ():
                found[f"{op}-{name}-{value}"] = lambda op=op, count=count, name=name, value=value: _node(
                    op, count, "vector", "vector", {name: value}
                )
    found |= {f"divide-{kind}": lambda kind=kind: _divide(*kind) for kind in (("Div", 0), ("Mod", 0), ("Div", -1), ("Mod", -1))}
    return found


def _node(op: str, count: int, kind: str, other: str, attributes: dict[str, object]) -> onnx.ModelProto:
    names = [f"w{at}" for at in range(count)]
    weights = [numpy_helper.from_array(np.asarray(ODD[kind if at % 2 == 0 else other]), name) for at, name in enumerate(names)]
    domain = "com.microsoft" if op in MICROSOFT else ""
    if op == "Einsum":
        attributes = {"equation": "ij,,->...k->" + kind}
    if op == "Conv":
        attributes = {"strides": [0, 0], "dilations": [0, 0], "group": 0}
    first = helper.make_node(op, names, ["constant"], domain=domain, **attributes)
    cast = helper.make_node("Cast", ["input_ids"], ["real"], to=FLOAT)
    second = helper.make_node(op, ["real", *names[1:]], ["dynamic"], domain=domain, **attributes)
    ends = [helper.make_node("Cast", [name], [f"{name}_out"], to=FLOAT) for name in ("constant", "dynamic")]
    return _model([first, cast, second, *ends], weights, ["constant_out", "dynamic_out"])


def _divide(op: str, by: int) -> onnx.ModelProto:
    """The lowest whole number by 0 or -1, which processors trap; constant, and in the run."""
    weights = [
        numpy_helper.from_array(np.array([-(2**63)], np.int64), "low"),
        numpy_helper.from_array(np.array([by], np.int64), "by"),
    ]
    made = [helper.make_node(op, ["low", "by"], ["a"]), helper.make_node("Mul", ["input_ids", "low"], ["lows"]),
            helper.make_node(op, ["lows", "by"], ["b"])]  # fmt: skip
    ends = [helper.make_node("Cast", [name], [f"{name}_out"], to=FLOAT) for name in ("a", "b")]
    return _model([*made, *ends], weights, ["a_out", "b_out"])


def _model(made: list[onnx.NodeProto], weights: list[TensorProto], outputs: list[str]) -> onnx.ModelProto:
    ids = [
        helper.make_tensor_value_info(name, INT, ["batch_size", "sequence_length"]) for name in ("input_ids", "attention_mask")
    ]
    values = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    graph = helper.make_graph(made, "g", ids, values, weights)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)

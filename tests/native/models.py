"""Models of com.onnxfuse's operators, and their equations in float64, for the tests beside."""

import math

import ml_dtypes
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

DOMAIN = "com.onnxfuse"
TYPES = ("float32", "bfloat16", "int8")
# Largest error allowed, relative to the largest value: rounding of x to bfloat16 or to a byte of its row.
TOLERANCE = {"float32": 2e-6, "bfloat16": 1.2e-2, "int8": 1.2e-2}


def _kind(array):
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def open_session(library, nodes, constants, inputs, threads=2):
    """A session of nodes; constants: name -> array; inputs: name -> type; the last node's first output is the graph's."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(library, op, arguments, attributes=None, constants=(), threads=2):
    """The output of one node. arguments: (name, array or None) in order; those named in `constants` are initializers."""
    arguments = list(arguments)
    node = helper.make_node(
        op, [name if array is not None else "" for name, array in arguments], ["y"], domain=DOMAIN, **(attributes or {})
    )
    given = {name: array for name, array in arguments if array is not None}
    fixed = {name: array for name, array in given.items() if name in constants}
    fed = {name: array for name, array in given.items() if name not in constants}
    session = open_session(library, [node], fixed, {name: _kind(array) for name, array in fed.items()}, threads)
    return session.run(None, fed)[0]


def close(got, wanted, tolerance):
    assert got.shape == wanted.shape
    assert got.dtype == np.float32
    scale = max(1.0, float(np.abs(wanted).max(initial=0)))
    assert np.abs(got - wanted).max(initial=0) <= tolerance * scale


LINEAR = ("x", "weight", "scale", "rows", "bias", "residual", "gamma", "beta")
WEIGHTS = ("weight", "scale", "rows", "bias", "gamma", "beta")
D, HEADS, F = 48, 3, 80
LAYER = ("qkv", "out", "norm1", "up", "down", "norm2")


def erf(x):
    return np.vectorize(math.erf)(x)


def activated(x, activation):
    if activation == "Gelu":
        return x * 0.5 * (1 + erf(x / math.sqrt(2)))
    if activation == "GeluTanh":
        return x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return x


def normed(x, gamma, beta, epsilon=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gamma + beta


def weight_of(rng, kind, rows, columns, with_rows=False):
    """The weight's inputs, and the float64 matrix that they stand for."""
    dense = (rng.normal(size=(rows, columns)) / math.sqrt(rows)).astype(np.float32)
    if kind == "float32":
        return {"weight": dense}, dense.astype(np.float64)
    if kind == "bfloat16":
        rounded = dense.astype(ml_dtypes.bfloat16)
        return {"weight": rounded}, rounded.astype(np.float64)
    scale = (np.abs(dense).max(0) / 127).astype(np.float32)
    whole = np.round(dense / scale).clip(-127, 127).astype(np.int8)
    inputs, matrix = {"weight": whole, "scale": scale}, whole * scale.astype(np.float64)
    if with_rows:
        inputs["rows"] = rng.uniform(0.5, 2, size=rows).astype(np.float32)
        matrix = matrix * inputs["rows"].astype(np.float64)[:, None]
    return inputs, matrix


def linear(library, tensors, threads=2, constants=WEIGHTS, **attributes):
    return run(library, "Linear", [(name, tensors.get(name)) for name in LINEAR], attributes, constants, threads)


def softmax_attention(q, k, v, heads, bounds, query_bounds, bias=None, scale=0.0):
    """Attention in float64 of q, k, v [tokens, heads * size]."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    size, wide = k.shape[1] // heads, v.shape[1] // heads
    scale = scale or 1 / math.sqrt(size)
    out = np.zeros((q.shape[0], v.shape[1]))
    for b in range(len(bounds) - 1):
        rows, keys = slice(query_bounds[b], query_bounds[b + 1]), slice(bounds[b], bounds[b + 1])
        if keys.start == keys.stop:
            continue
        for h in range(heads):
            part, values = slice(h * size, (h + 1) * size), slice(h * wide, (h + 1) * wide)
            scores = scale * q[rows, part] @ k[keys, part].T + (0 if bias is None else bias[keys].astype(np.float64))
            with np.errstate(invalid="ignore"):
                shares = np.exp(scores - scores.max(-1, keepdims=True))
                out[rows, values] = shares / shares.sum(-1, keepdims=True) @ v[keys, values]
    return out


def attention(library, q, k=None, v=None, bounds=None, bias=None, threads=2, **attributes):
    arguments = [("q", q), ("k", k), ("v", v), ("bounds", None if bounds is None else np.asarray(bounds)), ("bias", bias)]
    return run(library, "Attention", arguments, attributes, (), threads)


def encoder_tensors(kind, layers=2, with_rows=False, seed=0):
    """name -> array of all layers; None where a part is missing."""
    rng = np.random.default_rng(seed)
    shapes = {"qkv": (D, 3 * D), "out": (D, D), "up": (D, F), "down": (F, D)}
    tensors = {}
    for i in range(layers):
        for part in LAYER:
            name = f"{i}.{part}"
            if part in shapes:
                given, _ = weight_of(rng, kind, *shapes[part], with_rows=with_rows)
                for key in ("weight", "scale", "rows"):
                    tensors[f"{name}.{key}"] = given.get(key)
                tensors[f"{name}.bias"] = rng.normal(size=shapes[part][1]).astype(np.float32)
            else:
                tensors[f"{name}.gamma"] = rng.uniform(0.5, 2, size=D).astype(np.float32)
                tensors[f"{name}.beta"] = rng.normal(size=D).astype(np.float32)
    return tensors


def encoder_session(library, tensors, threads=2, bounds=False, bias=False, **attributes):
    """Missing parts are an initializer without elements: a variadic input cannot be left out in ONNX Runtime."""
    names = [name if array is not None else "none" for name, array in tensors.items()]
    node = helper.make_node(
        "Encoder", ["x", "bounds" * bounds, "bias" * bias, *names], ["y"], domain=DOMAIN, num_heads=HEADS, **attributes
    )
    constants = {name: array for name, array in tensors.items() if array is not None} | {"none": np.zeros(0, np.float32)}
    inputs = {"x": TensorProto.FLOAT}
    if bounds:
        inputs["bounds"] = TensorProto.INT64
    if bias:
        inputs["bias"] = TensorProto.FLOAT
    return open_session(library, [node], constants, inputs, threads)

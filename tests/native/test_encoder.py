"""Encoder in ONNX Runtime against the same layers as nodes, and in numpy."""

import threading

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.native.models import (
    DOMAIN,
    HEADS,
    TYPES,
    D,
    activated,
    close,
    encoder_session,
    encoder_tensors,
    normed,
    open_session,
    softmax_attention,
)


def nodes_of(tensors, order, activation, precision, bounds, bias):
    """The same layers as Linear, Attention and LayerNormalization nodes."""
    nodes, layers, at = [], len(tensors) // 20, "x"

    def add(op, inputs, domain=DOMAIN, **attributes):
        nodes.append(helper.make_node(op, inputs, [f"t{len(nodes)}"], domain=domain, **attributes))
        return nodes[-1].output[0]

    def product(i, part, x, residual="", norm="", activation=""):
        parts = [f"{i}.{part}.{key}" for key in ("weight", "scale", "rows", "bias")]
        parts = [name if tensors[name] is not None else "" for name in parts]
        gamma = [f"{i}.{norm}.gamma", f"{i}.{norm}.beta"] if norm else []
        return add("Linear", [x, *parts, residual, *gamma], activation=activation)

    def norm(i, part, x):
        inputs = [x, f"{i}.{part}.gamma", f"{i}.{part}.beta"]
        return add("LayerNormalization", inputs, domain="", axis=-1, epsilon=1e-5)

    for i in range(layers):
        pre = order == "pre"
        qkv = product(i, "qkv", norm(i, "norm1", at) if pre else at)
        inputs = [qkv, "", "", "bounds" * bounds, "bias" * bias]
        attended = add("Attention", inputs, num_heads=HEADS, precision=precision)
        half = product(i, "out", attended, at, "" if pre else "norm1")
        up = product(i, "up", norm(i, "norm2", half) if pre else half, activation=activation)
        at = product(i, "down", up, half, "" if pre else "norm2")
    return nodes


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_encoder_is_its_layers_as_nodes(library, kind, order, precision):
    rng = np.random.default_rng(7)
    tensors = encoder_tensors(kind, with_rows=kind == "int8")
    lengths = [30, 0, 1, 75, 600]
    x = rng.normal(size=(sum(lengths) + 4, D)).astype(np.float32)
    feeds = {"x": x, "bounds": np.cumsum([0, *lengths]), "bias": np.where(rng.random(len(x)) < 0.2, -1e4, 0).astype(np.float32)}
    attributes = {"order": order, "activation": "Gelu", "precision": precision}
    session = encoder_session(library, tensors, bounds=True, bias=True, **attributes)
    nodes = nodes_of(tensors, order, "Gelu", precision, True, True)
    constants = {name: array for name, array in tensors.items() if array is not None}
    inputs = {"x": TensorProto.FLOAT, "bounds": TensorProto.INT64, "bias": TensorProto.FLOAT}
    wanted = open_session(library, nodes, constants, inputs).run(None, feeds)[0]
    got = session.run(None, feeds)[0]
    if order == "post":
        np.testing.assert_array_equal(got, wanted)
    else:  # ONNX Runtime's own LayerNormalization rounds otherwise
        close(got, wanted, 1e-5 if kind == "float32" and precision == "float32" else 3e-2)


@pytest.mark.parametrize("order", ["post", "pre"])
@pytest.mark.parametrize("activation", ["", "Gelu", "GeluTanh"])
def test_encoder_is_its_equation(library, order, activation):
    tensors = encoder_tensors("float32", layers=3)
    x = np.random.default_rng(1).normal(size=(2, 21, D)).astype(np.float32)
    wide = {name: np.asarray(array, np.float64) for name, array in tensors.items() if array is not None}

    def product(i, part, x):
        return x @ wide[f"{i}.{part}.weight"] + wide[f"{i}.{part}.bias"]

    def norm(i, part, x):
        return normed(x, wide[f"{i}.{part}.gamma"], wide[f"{i}.{part}.beta"])

    def attend(i, x):
        qkv, bounds = product(i, "qkv", x), [0, 21, 42]
        return product(i, "out", softmax_attention(*np.split(qkv, 3, 1), HEADS, bounds, bounds))

    at = x.reshape(42, D).astype(np.float64)
    for i in range(3):
        if order == "pre":
            at = at + attend(i, norm(i, "norm1", at))
            at = at + product(i, "down", activated(product(i, "up", norm(i, "norm2", at)), activation))
        else:
            at = norm(i, "norm1", at + attend(i, at))
            at = norm(i, "norm2", at + product(i, "down", activated(product(i, "up", at), activation)))
    session = encoder_session(library, tensors, order=order, activation=activation)
    close(session.run(None, {"x": x})[0], at.reshape(x.shape), 1e-5)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("order", ["post", "pre"])
def test_a_sequence_in_the_encoder_alone_is_as_with_neighbours(library, kind, order):
    session = encoder_session(library, encoder_tensors(kind), bounds=True, order=order)
    lengths = [7, 1, 300, 64, 200]
    bounds = np.cumsum([0, *lengths])
    x = np.random.default_rng(2).normal(size=(bounds[-1], D)).astype(np.float32)
    got = session.run(None, {"x": x, "bounds": bounds})[0]
    for b, length in enumerate(lengths):
        rows = slice(bounds[b], bounds[b + 1])
        alone = session.run(None, {"x": x[rows], "bounds": np.array([0, length])})[0]
        np.testing.assert_array_equal(alone, got[rows])


def test_layers_of_different_types(library):
    mixed = encoder_tensors("int8")
    for part in ("0.down", "1.qkv", "1.up"):
        plain = encoder_tensors("bfloat16" if part == "1.qkv" else "float32")
        mixed.update({name: array for name, array in plain.items() if name.startswith(part + ".")})
    x = np.random.default_rng(2).normal(size=(2, 33, D)).astype(np.float32)
    nodes = nodes_of(mixed, "post", "", "float32", False, False)
    constants = {name: array for name, array in mixed.items() if array is not None}
    wanted = open_session(library, nodes, constants, {"x": TensorProto.FLOAT}).run(None, {"x": x})[0]
    np.testing.assert_array_equal(encoder_session(library, mixed).run(None, {"x": x})[0], wanted)


@pytest.mark.parametrize("shape", [(0, 4, D), (3, 0, D), (1, 1, D)])
def test_encoder_of_little(library, shape):
    session = encoder_session(library, encoder_tensors("int8"))
    assert session.run(None, {"x": np.ones(shape, np.float32)})[0].shape == shape


def test_one_session_called_from_many_threads(library):
    session = encoder_session(library, encoder_tensors("int8"), bounds=True)
    rng = np.random.default_rng(0)
    cases = []
    for _ in range(8):
        lengths = rng.integers(0, 120, size=rng.integers(1, 6))
        bounds = np.cumsum([0, *lengths])
        cases.append({"x": rng.normal(size=(bounds[-1], D)).astype(np.float32), "bounds": bounds})
    wanted = [session.run(None, case)[0] for case in cases]
    wrong = []

    def work(first):
        for i in range(40):
            case = (first + i) % len(cases)
            if not np.array_equal(session.run(None, cases[case])[0], wanted[case]):
                wrong.append(case)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong

"""Graphs that are larger than anything could be made of them, and tensors that are not what they say."""

import os

import numpy as np
import onnx
import onnx.parser
import pytest

from onnxfuse.errors import ModelError
from onnxfuse.io import limits, onnx_file, wire
from tests.conftest import HEADER

ADD = "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }"


def proto(text=ADD):
    return onnx.parser.parse_model(HEADER.format(opset=20) + text)


def refused(model, tmp_path, words):
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=words) as error:
        onnx_file.load(path)
    assert len(str(error.value).splitlines()) == 1 and str(path) in str(error.value)


def function(name, *called):
    nodes = [onnx.helper.make_node(op, ["a"], ["b"], domain="own" if op.startswith("f") else "") for op in called]
    for at, node in enumerate(nodes):
        node.input[0], node.output[0] = f"v{at}", f"v{at + 1}"
    imports = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("own", 1)]
    return onnx.helper.make_function("own", name, ["v0"], [f"v{len(nodes)}"], nodes, imports)


def calling(*functions):
    """A model of one node that calls the last function."""
    model = proto("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    model.functions.extend(functions)
    model.opset_import.add(domain="own", version=1)
    model.graph.node[0].op_type, model.graph.node[0].domain = functions[-1].name, "own"
    return model


def test_functions_that_call_each_other_many_times_are_counted_before_they_are_inlined(tmp_path):
    few = calling(function("f0", "Neg", "Abs"), *(function(f"f{at}", f"f{at - 1}", f"f{at - 1}") for at in range(1, 5)))
    assert limits.expanded(few) == 2**5
    many = calling(function("f0", "Neg"), *(function(f"f{at}", f"f{at - 1}", f"f{at - 1}") for at in range(1, 60)))
    refused(many, tmp_path, r"more than 100000 nodes once its functions are inlined")
    refused(
        calling(function("f0", "f1"), function("f1", "f0")),
        tmp_path,
        r"functions f., f., which call each other|functions f.*call each other",
    )


def test_graphs_have_a_size(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "NODES", 2)
    refused(
        proto("g (float[2] x) => (float[2] y) { a = Neg(x)  b = Neg(a)  y = Neg(b) }"), tmp_path, "a graph of 3 nodes, at most 2"
    )
    monkeypatch.setattr(limits, "NODES", 100)
    monkeypatch.setattr(wire, "FIELDS", 3)
    refused(proto("g (float[2] x) => (float[2] y) { a = Neg(x)  b = Neg(a)  y = Neg(b) }"), tmp_path, "too many to read")


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda tensor: setattr(tensor, "data_type", 999), "type number 999"),
        (lambda tensor: setattr(tensor, "data_type", 0), "type number 0|UNDEFINED"),
        (lambda tensor: tensor.dims.append(1 << 40), "holds 2 float, its sizes .* want"),
        (lambda tensor: tensor.dims.append(-1), "of sizes .*, wanted up to 64"),
        (lambda tensor: tensor.dims.extend([1] * 70), "of sizes .*, wanted up to 64"),
        (lambda tensor: setattr(tensor, "raw_data", b"123"), "holds 3 bytes, its sizes .* want 8"),
        (lambda tensor: tensor.float_data.append(1.0), "holds 3 float"),
        (lambda tensor: setattr(tensor, "data_type", onnx.TensorProto.INT64), "holds 0 int64"),
        (lambda tensor: setattr(tensor, "data_type", onnx.TensorProto.STRING), "holds 0 string"),
        (lambda tensor: setattr(tensor, "data_type", onnx.TensorProto.COMPLEX64), "holds 2 float, .* want 4"),
    ],
)
@pytest.mark.parametrize("inside", [False, True])
def test_tensors_hold_what_they_say(tmp_path, change, words, inside):
    model = proto(
        "g (float[2] x) => (float[2] y) { c = Constant <value = float[2] {1, 2}> ()  y = Add(x, c) }" if inside else ADD
    )
    tensor = model.graph.node[0].attribute[0].t if inside else model.graph.initializer[0]
    change(tensor)
    refused(model, tmp_path, words)


def test_inputs_have_axes_that_can_be_computed_with(tmp_path):
    model = proto()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 62
    refused(model, tmp_path, f"'x' with an axis of {1 << 62}, at most 2147483647 are read")


@pytest.mark.parametrize("kind", [name for name, number in onnx.TensorProto.DataType.items() if number])
def test_tensors_of_every_type_are_whole(kind):
    number = onnx.TensorProto.DataType.Value(kind)
    if kind == "STRING":
        return limits.require_whole(onnx.helper.make_tensor("t", number, [3], ["a", "b", "c"]))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(number)
    for raw in (False, True):
        tensor = onnx.numpy_helper.from_array(np.ones(3, dtype), "t")
        assert tensor.data_type == number
        if not raw:
            tensor = onnx.helper.make_tensor("t", number, [3], np.ones(3).astype(dtype))
        limits.require_whole(tensor)
    return None


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("offset", "abc", "wanted a number"),
        ("offset", "-1", "wanted a number"),
        ("offset", "²", "wanted a number"),
        ("length", "", "wanted a number"),
        ("length", "9" * 30, "beyond the end of any file"),
        ("offset", "9" * 30, "beyond the end of any file"),
    ],
)
def test_places_of_weights_are_numbers(tmp_path, key, value, words):
    (tmp_path / "w.bin").write_bytes(b"\0" * 64)
    model = proto()
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    tensor.external_data.add(key=key, value=value)
    refused(model, tmp_path, f"has {key} .*, {words}; export it again")


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("", "weight w names no file for its numbers; export it again"),
        ("a\0b", r"weight w is in 'a.x00b', which no file can be called; export it again"),
        ("../w.bin", "weight w points outside the model's folder .'../w.bin'.; save the model again with its weights beside it"),
        ("sub/../../w.bin", "points outside the model's folder .*; save the model again with its weights beside it"),
        ("/etc/hostname", "points outside the model's folder .*; save the model again with its weights beside it"),
        ("..w.bin", "its weights file '..w.bin' is missing; copy it beside the model"),
    ],
)
def test_what_to_do_about_weights_that_are_not_beside(tmp_path, location, words):
    model = proto()
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    refused(model, tmp_path, words)


@pytest.mark.parametrize("made", ["a named pipe", "a folder", "a device"])
def test_weights_lie_in_regular_files(tmp_path, made):
    model = proto()
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    if made == "a device":
        (tmp_path / "w.bin").symlink_to("/dev/zero")
        return refused(model, tmp_path, "lies outside")
    (os.mkfifo if made == "a named pipe" else os.mkdir)(tmp_path / "w.bin")
    return refused(model, tmp_path, f"is {made}, not a file")


@pytest.mark.parametrize("dims", [[1 << 40], [1 << 20, 1 << 20], [-5], [1] * 70])
def test_sparse_tensors_are_not_made_dense_at_any_size(tmp_path, dims):
    model = proto("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    sparse = model.graph.sparse_initializer.add(dims=dims)
    sparse.values.CopyFrom(onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [1.0]))
    sparse.indices.CopyFrom(onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [1], [0]))
    refused(model, tmp_path, "when dense, at most")


def test_sparse_tensors_whose_places_are_outside_are_named(tmp_path):
    model = proto("g (float[2] x) => (float[2] y) { y = Neg(x) }")
    sparse = model.graph.sparse_initializer.add(dims=[3])
    sparse.values.CopyFrom(onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [1.0]))
    sparse.indices.CopyFrom(onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [1], [7]))
    refused(model, tmp_path, "the sparse tensor 'w' cannot be read")


@pytest.mark.parametrize("name, kept", [("3", 3), ("²", None), ("٣", None), ("9" * 30, None), ("-1", None), ("batch", "batch")])
def test_dimensions_named_by_numbers(tmp_path, name, kept):
    model = proto("g (float[N] x) => (float[M] y) { y = Neg(x) }")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = name
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    dim = onnx_file.load(tmp_path / "a.onnx").graph.inputs[0].shape.dims[0]
    assert (dim if isinstance(dim, int) else dim.value) == kept


def test_values_of_too_many_axes(tmp_path):
    model = proto()
    for _ in range(100):
        model.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1)
    refused(model, tmp_path, "'x' with 101 axes")


@pytest.mark.parametrize("kind", [0, 99, -1])
def test_inputs_have_a_type_that_onnx_has(tmp_path, kind):
    model = proto()
    model.graph.input[0].type.tensor_type.elem_type = kind
    refused(model, tmp_path, f"input 'x' of type number {kind}, which ONNX has not")


def test_constants_have_one_value(tmp_path):
    model = proto("g (float[2] x) => (float[2] y) { c = Constant <value = float[2] {1, 2}> ()  y = Add(x, c) }")
    del model.graph.node[0].attribute[:]
    refused(model, tmp_path, "with 0 attributes, wanted the one that is its value")


@pytest.mark.parametrize("ends", ["input", "output"])
def test_a_model_of_too_many_inputs_or_outputs(tmp_path, ends):
    model = proto()
    for at in range(1001):
        getattr(model.graph, ends).add(name=f"v{at}").type.tensor_type.elem_type = 1
    refused(model, tmp_path, r"a graph of \d+ inputs and \d+ outputs, at most 1000")
    old = proto()  # weights stood among the inputs once
    old.graph.initializer.extend(onnx.helper.make_tensor(f"w{at}", 1, [1], [0.0]) for at in range(1001))
    old.graph.input.extend(onnx.helper.make_tensor_value_info(f"w{at}", 1, [1]) for at in range(1001))
    limits.require_modest(old)

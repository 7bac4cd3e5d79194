"""Reading and writing: nothing lost, nothing half-written, broken files named as such."""

import os
import resource
import signal
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxfuse.errors import ModelError, StorageError, UsageError
from onnxfuse.io import atomic, onnx_file
from onnxfuse.optimizer import fuse
from onnxfuse.runtime.sessions import open_session
from onnxfuse.targets import find
from tests.cli.test_cli import expect_one_line
from tests.conftest import HANGS, clean, fill, parse


def small(path: Path, width: int = 64) -> ir.Model:
    """A linear layer with ``width**2`` weights, saved by onnx itself."""
    text = f"g (float[B,{width}] x, float[{width},{width}] w) => (float[B,{width}] y) {{ y = MatMul(x, w) }}"
    model = fill(parse(text), w=(width, width))
    onnx.save(ir.to_proto(model), path)
    return model


def test_weights_come_back_bit_for_bit_and_stay_in_the_file(tmp_path):
    wanted = small(tmp_path / "a.onnx").graph.initializers["w"].const_value.numpy()
    model = onnx_file.load(tmp_path / "a.onnx")
    weight = model.graph.initializers["w"].const_value
    assert isinstance(weight, ir.ExternalTensor)
    np.testing.assert_array_equal(weight.numpy(), wanted)
    onnx_file.save(model, tmp_path / "b.onnx")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(onnx.load(tmp_path / "b.onnx").graph.initializer[0]), wanted)
    open_session(tmp_path / "b.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_external_data_is_followed_beside_the_model(tmp_path):
    model = small(tmp_path / "a.onnx")
    onnx.save(ir.to_proto(model), tmp_path / "ext.onnx", save_as_external_data=True, location="ext.data", size_threshold=0)
    wanted = model.graph.initializers["w"].const_value.numpy()
    np.testing.assert_array_equal(onnx_file.load(tmp_path / "ext.onnx").graph.initializers["w"].const_value.numpy(), wanted)
    (tmp_path / "ext.data").write_bytes(b"short")
    with pytest.raises(ModelError, match="ends before weight w"):
        onnx_file.load(tmp_path / "ext.onnx")
    (tmp_path / "ext.data").unlink()
    with pytest.raises(ModelError, match="missing"):
        onnx_file.load(tmp_path / "ext.onnx")


def test_above_the_limit_weights_go_beside_the_model(tmp_path, monkeypatch):
    small(tmp_path / "a.onnx")
    monkeypatch.setattr(onnx_file, "PROTOBUF_LIMIT", (1 << 20) + 5000)
    model = onnx_file.load(tmp_path / "a.onnx")
    onnx_file.save(model, tmp_path / "b.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "b.onnx.data"]
    np.testing.assert_array_equal(
        onnx_file.load(tmp_path / "b.onnx").graph.initializers["w"].const_value.numpy(),
        model.graph.initializers["w"].const_value.numpy(),
    )
    assert onnx_file.model_bytes(tmp_path / "b.onnx") > 64 * 64 * 4


def test_the_size_of_a_model_counts_its_weights_wherever_they_are(tmp_path):
    model = ir.to_proto(small(tmp_path / "a.onnx"))
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=0)
    (tmp_path / "model.onnx.data").write_bytes(b"another model's")
    parts = [(tmp_path / name).stat().st_size for name in ("model.onnx", "model.onnx_data")]
    assert onnx_file.model_bytes(tmp_path / "model.onnx") == sum(parts)
    assert parts[1] >= 64 * 64 * 4
    (tmp_path / "model.tflite").write_bytes(b"12345")
    assert onnx_file.model_bytes(tmp_path / "model.tflite") == 5


@pytest.mark.parametrize("location", ["/etc/passwd", "../outside.data"])
def test_external_data_outside_the_folder_is_refused(tmp_path, location):
    proto = ir.to_proto(small(tmp_path / "a.onnx"))
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match=r"outside the model's folder|lies outside"):
        onnx_file.load(tmp_path / "bad.onnx")


def test_every_truncation_is_a_model_error(tmp_path):
    small(tmp_path / "a.onnx", width=32)
    whole = (tmp_path / "a.onnx").read_bytes()
    for length in range(1, len(whole), max(1, len(whole) // 60)):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        with pytest.raises(ModelError):
            onnx_file.load(tmp_path / "cut.onnx")


def test_bad_paths_and_files(tmp_path):
    with pytest.raises(UsageError, match="is not there"):
        onnx_file.load(tmp_path / "none.onnx")
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ModelError, match="is empty"):
        onnx_file.load(tmp_path / "empty.onnx")
    (tmp_path / "text.onnx").write_text("This is a text file, not a model.\n" * 20)
    with pytest.raises(ModelError, match=r"text\.onnx"):
        onnx_file.load(tmp_path / "text.onnx")


def test_a_weight_whose_bytes_do_not_fit_its_shape_is_refused(tmp_path):
    proto = ir.to_proto(small(tmp_path / "a.onnx"))
    proto.graph.initializer[0].dims[0] = 63
    (tmp_path / "bad.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="its shape wants"):
        onnx_file.load(tmp_path / "bad.onnx")


def test_an_opset_of_the_future_is_refused(tmp_path):
    model = proto(PLAIN.replace("17", "99"))
    (tmp_path / "new.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"new\.onnx has opset 99, and onnx .* knows up to"):
        onnx_file.load(tmp_path / "new.onnx")


# What ONNX Runtime runs, though the standard does not allow it ------------------------------------------------------

PLAIN = '<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y) { a = Exp(x)  y = Neg(a) }'
SCALED = '<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y) <float[3] w = {1, -2, 3}> { y = Mul(x, w) }'
MEAN = '<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2] y) { y = ReduceMean<axes = [1], keepdims = 0>(x) }'
CONTRIB = (
    '<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> g (float[2,3] x) => (float[2,3] y) { y = com.microsoft.Gelu(x) }'
)
LINEAR = (
    '<ir_version: 8, opset_import: ["": 17, "ai.onnx.ml": 3]> g (float[2,3] x) => (float[2,3] y) { y = ai.onnx.ml.Normalizer(x) }'
)
NORM = """<ir_version: 8, opset_import: ["": 13]> g (float[2,3] x) => (float[2,3] y) <float[3] w = {1, -2, 3}>
    { a = LayerNormalization<axis = -1>(x, w)  y = SimplifiedLayerNormalization<axis = -1>(a, w) }"""
IF = """<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (float[2,3] y) <bool c = {1}> { k = Exp(x)  y = If (c) <
    then_branch = t () => (float[2,3] u) { u = Neg(k) }, else_branch = e () => (float[2,3] v) { v = Identity(x) }> }"""
ROWS = {"x": np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)}
SPARSE = onnx.helper.make_sparse_tensor(
    onnx.numpy_helper.from_array(np.array([2, 5], np.float32), "w"), onnx.numpy_helper.from_array(np.array([0, 2])), [3]
)


def proto(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


def twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([7, 8, 9], np.float32), "w"))


def unnamed(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(2, np.float32), ""))


def sparse(model: onnx.ModelProto) -> None:
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(SPARSE)


def sparse_table(model: onnx.ModelProto) -> None:
    values, at = np.array([2, 5], np.float32), np.array([[0, 1], [1, 2]])
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(
        onnx.helper.make_sparse_tensor(onnx.numpy_helper.from_array(values, "w"), onnx.numpy_helper.from_array(at), [2, 3])
    )


def sparse_constant(model: onnx.ModelProto) -> None:
    del model.graph.initializer[:]
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], sparse_value=SPARSE))


def backwards(model: onnx.ModelProto) -> None:
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def domains(*entries: tuple[str, int]):
    def change(model: onnx.ModelProto) -> None:
        del model.opset_import[:]
        model.opset_import.extend(onnx.helper.make_opsetid(*entry) for entry in entries)

    return change


def long_name(model: onnx.ModelProto) -> None:
    model.opset_import[0].domain = model.graph.node[0].domain = "ai.onnx"


def old(version: int, *, inputs: bool = False):
    def change(model: onnx.ModelProto) -> None:
        model.ir_version = version
        if inputs:
            model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3]))

    return change


def untyped(model: onnx.ModelProto) -> None:
    model.graph.output[0].ClearField("type")


def shapeless(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.ClearField("shape")


def bare(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def input_shown(model: onnx.ModelProto) -> None:
    model.graph.output.append(onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["other"]))


def input_alone(model: onnx.ModelProto) -> None:
    del model.graph.node[:]
    model.graph.output[0].name = "x"


def keys(model: onnx.ModelProto) -> None:
    for value in "12":
        model.metadata_props.add(key="key", value=value)


def no_name(model: onnx.ModelProto) -> None:
    model.graph.name = ""


ODD = {
    "LayerNormalization below opset 17": (NORM, lambda model: None),
    "nodes in no order": (PLAIN, backwards),
    "an If before what its branch reads": (IF, backwards),
    "com.microsoft not imported": (CONTRIB, domains(("", 17))),
    "ai.onnx.ml not imported": (LINEAR, domains(("", 17))),
    "the standard not imported": (PLAIN, domains(("com.microsoft", 1))),
    "nothing of the standard": (CONTRIB, domains(("com.microsoft", 1))),
    "the standard by its long name": (PLAIN, long_name),
    "the standard twice": (MEAN, domains(("", 18), ("", 17))),
    "the standard by both names": (MEAN, domains(("", 18), ("ai.onnx", 17))),
    "an output without a shape": (PLAIN, shapeless),
    "an output without a type": (PLAIN, untyped),
    "an input without a shape": (PLAIN, bare),
    "an output whose type and shape only ONNX Runtime knows": (CONTRIB.replace("Gelu", "QuickGelu"), untyped),
    "an output whose shape only ONNX Runtime knows": (CONTRIB.replace("Gelu", "QuickGelu"), shapeless),
    "an input as output, declared otherwise": (PLAIN, input_shown),
    "no nodes": (PLAIN, input_alone),
    "IR 3, weights not among the inputs": (SCALED, old(3)),
    "IR 3, weights among the inputs": (SCALED, old(3, inputs=True)),
    "IR 4, weights among the inputs": (SCALED, old(4, inputs=True)),
    "IR 2": (SCALED, old(2)),
    "a graph without a name": (PLAIN, no_name),
    "an initializer twice": (SCALED, twice),
    "an initializer without a name": (SCALED, unnamed),
    "a sparse initializer": (SCALED, sparse),
    "a sparse table": (SCALED, sparse_table),
    "a sparse Constant": (SCALED, sparse_constant),
    "metadata twice": (PLAIN, keys),
}
FOREIGN = {
    "LayerNormalization below opset 17",
    "an input without a shape",
    "an output whose type and shape only ONNX Runtime knows",
    "an output whose shape only ONNX Runtime knows",
}
"""What the checker cannot accept: only ONNX Runtime knows the operators, or the shape."""


def signature(path: Path) -> tuple[list[str], list[str], list[str]]:
    session = open_session(path)
    return tuple(
        [value.name for value in values]
        for values in (session.get_inputs(), session.get_outputs(), session.get_overridable_initializers())  # type: ignore[return-value]
    )


@pytest.mark.parametrize("name", ODD)
def test_what_onnx_runtime_runs_is_loaded_and_written_as_the_standard_wants_it(name, tmp_path):
    text, change = ODD[name]
    model = proto(text)
    change(model)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    wanted = open_session(tmp_path / "a.onnx").run(None, ROWS)
    onnx_file.save(onnx_file.load(tmp_path / "a.onnx"), tmp_path / "b.onnx")
    if name not in FOREIGN:
        onnx.checker.check_model(onnx.load(tmp_path / "b.onnx"))
    assert signature(tmp_path / "b.onnx") == signature(tmp_path / "a.onnx")
    for array, got in zip(wanted, open_session(tmp_path / "b.onnx").run(None, ROWS), strict=True):
        np.testing.assert_array_equal(got, array)


def test_the_lowest_opset_is_taken_that_means_what_the_newest_does(tmp_path):
    model = proto(PLAIN.replace("Exp(x)", "Gelu(x)").replace("17", "20"))
    domains(("com.microsoft", 1))(model)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert onnx_file.load(tmp_path / "a.onnx").opset_imports[""] == 20


def test_weights_of_ir_3_are_constants_as_they_are_to_the_runtime(tmp_path):
    model = proto(SCALED)
    old(3, inputs=True)(model)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert [value.name for value in onnx_file.load(tmp_path / "a.onnx").graph.inputs] == ["x"]
    old(4)(model)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert [value.name for value in onnx_file.load(tmp_path / "a.onnx").graph.inputs] == ["x", "w"]


def test_types_and_shapes_of_outputs_follow_from_the_graph(tmp_path):
    model = proto(PLAIN.replace("[2,3]", "[B,3]"))
    untyped(model)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    [output] = onnx_file.load(tmp_path / "a.onnx").graph.outputs
    assert (output.dtype, str(output.shape)) == (ir.DataType.FLOAT, "[B,3]")
    model = proto(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2,3] x) => (int64[N,2] y) { a = NonZero(x)  y = Transpose(a) }'
    )
    shapeless(model)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    [output] = onnx_file.load(tmp_path / "a.onnx").graph.outputs
    assert [getattr(dim, "value", dim) for dim in output.shape.dims] == [None, 2]


def test_negative_sizes_are_dynamic_and_unlike_each_other(tmp_path):
    model = proto(PLAIN)
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            dim.dim_value = -1
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    loaded = onnx_file.load(tmp_path / "a.onnx")
    assert [
        getattr(dim, "value", dim) for value in (*loaded.graph.inputs, *loaded.graph.outputs) for dim in value.shape.dims
    ] == [None] * 4
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim, ("-1", "5"), strict=True):
        dim.dim_param = name
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert [getattr(dim, "value", dim) for dim in onnx_file.load(tmp_path / "a.onnx").graph.inputs[0].shape.dims] == [None, 5]


@pytest.mark.parametrize(
    ("text", "change", "why"),
    [
        (PLAIN, lambda model: model.ClearField("ir_version"), "ir_version"),
        (PLAIN, domains(), "no opset or no outputs"),
        (PLAIN, lambda model: model.graph.ClearField("output"), "no opset or no outputs"),
        (PLAIN, lambda model: model.graph.node.append(model.graph.node[1]), "'y' has been used as output names multiple times"),
        (PLAIN.replace("Exp(x)", "Exp(y)"), lambda model: None, "feed each other in a circle"),
        (PLAIN, lambda model: model.graph.input[0].ClearField("type"), "type"),
        (PLAIN.replace("Exp", "Nothing"), lambda model: None, "No Op registered for Nothing"),
        (CONTRIB.replace("com.microsoft", "nobody"), domains(("", 17)), "No opset import for domain 'nobody'"),
    ],
)
def test_what_onnx_runtime_refuses_is_refused_in_one_line(text, change, why, tmp_path):
    model = proto(text)
    change(model)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=why) as seen:
        onnx_file.load(tmp_path / "a.onnx")
    assert len(str(seen.value).splitlines()) == 1
    assert str(seen.value).startswith(str(tmp_path / "a.onnx"))


# External tensors ----------------------------------------------------------------------------------------------------


def apart(name: str, array: np.ndarray, folder: Path, location: str = "w.bin") -> onnx.TensorProto:
    """A tensor whose bytes lie 8 bytes into a file."""
    tensor = onnx.TensorProto(
        name=name,
        data_type=onnx.helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    for key, value in (("location", location), ("offset", "8"), ("length", str(array.nbytes))):
        tensor.external_data.add(key=key, value=value)
    (folder / location).parent.mkdir(parents=True, exist_ok=True)
    (folder / location).write_bytes(b"12345678" + array.tobytes())
    return tensor


def as_initializer(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.initializer.append(tensor)


def as_constant(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=tensor))


def branch_initializer(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.node[0].attribute[0].g.initializer.append(tensor)


def branch_constant(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.graph.node[0].attribute[0].g.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=tensor))


def function_constant(model: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    model.functions[0].node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=tensor))


HEAD = '<ir_version: 8, opset_import: ["": 17, "f": 1]> g (float[2,N] x) => (float[2,N] y) '
MUL = HEAD + "{ y = Mul(x, w) }"
IN_BRANCH = (
    HEAD
    + """<bool c = {1}> { y = If (c) <then_branch = t () => (float[2,N] u) { u = Mul(x, w) },
    else_branch = e () => (float[2,N] v) { v = Identity(x) }> }"""
)
IN_FUNCTION = HEAD + '{ y = f.part(x) } <domain: "f", opset_import: ["": 17]> part (x) => (y) { y = Mul(x, w) }'


@pytest.mark.parametrize(
    ("text", "put"),
    [
        (MUL, as_initializer),
        (MUL, as_constant),
        (IN_BRANCH, branch_initializer),
        (IN_BRANCH, branch_constant),
        (IN_FUNCTION, function_constant),
    ],
)
@pytest.mark.parametrize("size", [3, 100, 1000])
@pytest.mark.parametrize("whole", [True, False])
def test_tensors_in_other_files_come_along_wherever_they_are_named(text, put, size, whole, tmp_path, monkeypatch):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    weights = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    model = proto(text)
    put(model, apart("w", weights, there))
    (there / "a.onnx").write_bytes(model.SerializeToString())
    monkeypatch.chdir(here)
    x = np.random.default_rng(1).standard_normal((2, size)).astype(np.float32)
    loaded = onnx_file.load(there / "a.onnx")
    if whole:
        fuse(loaded, find("cpu"))
    onnx_file.save(loaded, here / "b.onnx")
    (there / "w.bin").unlink()
    assert sorted(path.name for path in here.iterdir()) == ["b.onnx"]
    np.testing.assert_array_equal(open_session(here / "b.onnx").run(None, {"x": x})[0], x * weights)


@pytest.mark.parametrize("put", [sparse, sparse_constant])
def test_parts_of_sparse_tensors_come_along_too(put, tmp_path):
    model = proto(SCALED)
    put(model)
    tensor = model.graph.sparse_initializer[0] if put is sparse else model.graph.node[0].attribute[0].sparse_tensor
    tensor.values.CopyFrom(apart("w", np.array([2, 5], np.float32), tmp_path))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    loaded = onnx_file.load(tmp_path / "a.onnx")
    clean(loaded)
    assert loaded.graph.initializers["w"].const_value.numpy().tolist() == [2, 0, 5]
    tensor.values.external_data[0].value = str(tmp_path / "w.bin")
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        onnx_file.load(tmp_path / "a.onnx")


@pytest.mark.parametrize("size", [3, 1000])
def test_links_of_the_hubs_cache_are_followed_and_no_others(size, tmp_path):
    weights = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    repository = tmp_path / "models--owner--name"
    blobs, snapshot = repository / "blobs", repository / "snapshots" / "one"
    snapshot.mkdir(parents=True)
    model = proto(MUL)
    as_initializer(model, apart("w", weights, blobs, "123"))
    model.graph.initializer[0].external_data[0].value = "model.data"
    (blobs / "456").write_bytes(model.SerializeToString())
    (snapshot / "model.onnx").symlink_to(blobs / "456")
    (snapshot / "model.data").symlink_to(blobs / "123")
    open_session(snapshot / "model.onnx")
    onnx_file.save(onnx_file.load(snapshot / "model.onnx"), tmp_path / "b.onnx")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(onnx.load(tmp_path / "b.onnx").graph.initializer[0]), weights)
    (tmp_path / "elsewhere").write_bytes((blobs / "123").read_bytes())
    (snapshot / "model.data").unlink()
    (snapshot / "model.data").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match=r"lies outside .*: it points to .*elsewhere; refused"):
        onnx_file.load(snapshot / "model.onnx")


def test_an_absolute_path_is_refused_even_into_the_models_folder(tmp_path):
    model = proto(MUL)
    as_initializer(model, apart("w", np.ones(3, np.float32), tmp_path))
    model.graph.initializer[0].external_data[0].value = str(tmp_path / "w.bin")
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        onnx_file.load(tmp_path / "a.onnx")


def test_weights_under_a_second_name_on_the_disk_are_read(tmp_path):
    model = proto(MUL)
    as_initializer(model, apart("w", np.ones(1000, np.float32), tmp_path))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    os.link(tmp_path / "w.bin", tmp_path / "again.bin")
    os.link(tmp_path / "a.onnx", tmp_path / "again.onnx")
    assert onnx_file.load(tmp_path / "a.onnx").graph.initializers["w"].const_value.numpy().sum() == 1000


def test_names_are_told_apart_and_inputs_and_outputs_keep_theirs(tmp_path):
    model = parse("g (float[2] x, bool c) => (float[2] y) { k = Exp(x)  a = Neg(k)  y = Add(a, k) }")
    first, second, last = model.graph
    first.outputs[0].name = second.outputs[0].name = last.inputs[0].name = "y"
    first.name = second.name = "node"
    onnx_file.save(model, tmp_path / "b.onnx")
    assert len({value.name for node in model.graph for value in node.outputs}) == 3
    assert [value.name for value in (*model.graph.inputs, *model.graph.outputs)] == ["x", "c", "y"]
    assert first.name != second.name
    open_session(tmp_path / "b.onnx")


def test_an_output_left_out_gets_no_name():
    model = parse(
        "g (float[1,2,3] x, float[1,4,3] w, float[1,4,1] r) => (float[1,2,1] y) { a, y = LSTM<hidden_size = 1>(x, w, r) }"
    )
    model.graph[0].outputs[0].name = ""
    onnx_file.name_apart(model)
    assert [value.name for value in model.graph[0].outputs] == ["", "y"]


def test_a_graph_that_cannot_be_written_names_the_file_that_was_asked_for(tmp_path):
    model = parse("g (float[2] x) => (float[2] y) { y = Nothing(x) }")
    with pytest.raises(
        ModelError, match=r"what onnxfuse would write to .*/b.onnx cannot be read as a valid ONNX model \(No Op registered"
    ) as seen:
        onnx_file.save(model, tmp_path / "b.onnx")
    assert ".onnxfuse-" not in str(seen.value)
    assert not list(tmp_path.iterdir())


def test_a_failing_block_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic.replacing(path) as staged:
        staged.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_what_lies_beside_the_staging_file_moves_with_it_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("old")
    (tmp_path / "in" / "b.txt").parent.mkdir()
    (tmp_path / "in" / "b.txt").write_text("old")

    def stage(*names):
        with atomic.replacing(path) as staged:
            for name in (*names, "a.txt"):
                (staged.parent / name).parent.mkdir(exist_ok=True)
                (staged.parent / name).write_text("new")

    def there():
        return {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.rglob("*") if file.is_file()}

    move, link = os.replace, os.link

    def full(source, target):
        if target == path and source.parent != tmp_path:
            raise OSError(28, "No space left on device")
        move(source, target)

    def none(source, target, **_):
        raise OSError(95, "Operation not supported")

    for second_name in (link, none):  # a file system may have no second names for a file
        monkeypatch.setattr(os, "link", second_name)
        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match=r"No space left on device; .*what was there is untouched"):
            stage("in/b.txt", "in/c.txt")
        assert there() == {"a.txt": "old", "in/b.txt": "old"}
    monkeypatch.setattr(os, "replace", move)
    stage("in/b.txt", "in/c.txt")
    assert there() == {"a.txt": "new", "in/b.txt": "new", "in/c.txt": "new"}


def test_an_error_names_the_place_of_a_staged_file(tmp_path):
    with pytest.raises(ModelError) as raised, atomic.replacing(tmp_path / "a.onnx") as staged:
        raise ModelError(f"cannot open {staged}: and {staged.parent}/b")
    assert str(raised.value) == f"cannot open {tmp_path}/a.onnx: and {tmp_path}/b"


def test_an_unwritable_folder_is_a_storage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot write"):
        atomic.save_text("x", tmp_path / "file" / "a.txt")


def limit_file_size() -> None:
    """A disk that is full after 100 kB, as the kernel reports it to a write."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_a_full_disk_is_one_line_and_the_old_file_is_whole(tmp_path, process):
    small(tmp_path / "model.onnx", width=256)
    (tmp_path / "model_optimized.onnx").write_text("old")
    result = process("optimize", "model.onnx", "--model-type", "bert", "--overwrite", preexec_fn=limit_file_size)
    expect_one_line(result, 8, "cannot write", "what was there is untouched")
    assert (tmp_path / "model_optimized.onnx").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model_optimized.onnx"]


INTERRUPTED = """
import os, signal, sys
from onnxfuse.cli import app

moment, which = sys.argv.pop(1), int(sys.argv.pop(1))

def interrupt(event, arguments):
    what = f"open {arguments[1]}" if event == "open" else event
    if what == moment and ".onnxfuse-" in str(arguments[0]):
        os.kill(os.getpid(), which)

sys.addaudithook(interrupt)
app.main()
"""
"""The command line, which gets a signal at the moment when it is about to do a thing with a staged file."""


@pytest.mark.parametrize(
    ("which", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")], ids=["INT", "TERM"]
)
@pytest.mark.parametrize("moment", ["open w", "open r", "os.rename"])
def test_a_signal_in_the_middle_of_a_save_is_told_truly(start, tmp_path, moment, which, code, word):
    """Before the first byte, and when it is read back, the old file stays; between the renames the new ones take their places."""
    small(tmp_path / "model.onnx")
    (tmp_path / "model_optimized.onnx").write_text("old")
    command = ("optimize", "model.onnx", "--model-type", "bert", "--overwrite")
    process = start("-c", INTERRUPTED, moment, str(int(which)), *command)
    _, stderr = process.communicate(timeout=HANGS)
    assert process.returncode == code, stderr
    saved = moment == "os.rename"
    what = "saved before that: model_optimized.onnx" if saved else "nothing was saved"
    assert stderr.splitlines()[-1] == f"onnxfuse: {word}; no file is half-written; {what}"
    if saved:
        assert onnx_file.metadata(tmp_path / "model_optimized.onnx")
    else:
        assert (tmp_path / "model_optimized.onnx").read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["model.onnx", "model_optimized.onnx", *(["onnxfuse.json"] if saved else [])]

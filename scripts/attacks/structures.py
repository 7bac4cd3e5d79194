"""Changes of a valid model that make its structure malformed: what is missing, there twice, of another kind, or without end."""

from __future__ import annotations

import onnx
from onnx import AttributeProto, TensorProto, helper

from attacks.protos import Change, largest

CHANGES: dict[str, Change] = {}


def _change(change: Change) -> Change:
    CHANGES[change.__name__.strip("_").replace("_", "-")] = change
    return change


@_change
def _no_graph(proto: onnx.ModelProto) -> None:
    proto.ClearField("graph")


@_change
def _no_nodes(proto: onnx.ModelProto) -> None:
    del proto.graph.node[:]


@_change
def _no_opset(proto: onnx.ModelProto) -> None:
    del proto.opset_import[:]


@_change
def _opset_twice(proto: onnx.ModelProto) -> None:
    proto.opset_import.add(domain="", version=9)


@_change
def _no_inputs(proto: onnx.ModelProto) -> None:
    del proto.graph.input[:]


@_change
def _no_outputs(proto: onnx.ModelProto) -> None:
    del proto.graph.output[:]


@_change
def _input_twice(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(proto.graph.input[0])


@_change
def _output_twice(proto: onnx.ModelProto) -> None:
    proto.graph.output.append(proto.graph.output[0])


@_change
def _input_untyped(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].ClearField("type")


@_change
def _output_untyped(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].ClearField("type")


@_change
def _input_sequence(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1


@_change
def _input_optional(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.optional_type.elem_type.tensor_type.elem_type = 1


@_change
def _input_map(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.map_type.key_type = 7


@_change
def _input_sparse(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.sparse_tensor_type.elem_type = 1


@_change
def _output_sequence(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.sequence_type.elem_type.tensor_type.elem_type = 1


@_change
def _many_inputs(proto: onnx.ModelProto) -> None:
    for number in range(20_000):
        proto.graph.input.append(helper.make_tensor_value_info(f"more{number}", 1, ["a"]))


@_change
def _many_dims(proto: onnx.ModelProto) -> None:
    for _ in range(100_000):
        proto.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1)


@_change
def _cycle(proto: onnx.ModelProto) -> None:
    proto.graph.node.add(op_type="Identity", input=["circle2"], output=["circle1"])
    proto.graph.node.add(op_type="Identity", input=["circle1"], output=["circle2"])


@_change
def _reversed(proto: onnx.ModelProto) -> None:
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


@_change
def _node_twice(proto: onnx.ModelProto) -> None:
    proto.graph.node.append(proto.graph.node[2])


@_change
def _weight_twice(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(proto.graph.initializer[0])


@_change
def _weight_nameless(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].ClearField("name")


@_change
def _weight_missing(proto: onnx.ModelProto) -> None:
    del proto.graph.initializer[0]


@_change
def _weight_and_raw(proto: onnx.ModelProto) -> None:
    largest(proto).float_data.extend([1.0, 2.0])


@_change
def _weight_floats(proto: onnx.ModelProto) -> None:
    tensor = largest(proto)
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0])


@_change
def _weight_segment(proto: onnx.ModelProto) -> None:
    largest(proto).segment.begin = 5


@_change
def _weight_nan(proto: onnx.ModelProto) -> None:
    tensor = largest(proto)
    tensor.raw_data = b"\xff" * len(tensor.raw_data)


@_change
def _weights_zero(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        tensor.raw_data = bytes(len(tensor.raw_data))


@_change
def _small_huge(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        if tensor.data_type == 7:
            tensor.raw_data = b"\xff\xff\xff\xff\xff\xff\xff\x7f" * (len(tensor.raw_data) // 8)


@_change
def _sparse(proto: onnx.ModelProto) -> None:
    values = helper.make_tensor("sparse", 1, [1], [1.0])
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, helper.make_tensor("at", 7, [1], [2**40]), [2**41]))


@_change
def _function_recursive(proto: onnx.ModelProto) -> None:
    _function(proto, "evil", [helper.make_node("Again", ["x"], ["y"], domain="evil")])


@_change
def _function_fork(proto: onnx.ModelProto) -> None:
    """Each calls the next twice: 2**40 nodes."""
    for level in range(40):
        inner = f"F{level + 1}" if level < 39 else "Identity"
        domain = "evil" if level < 39 else ""
        nodes = [helper.make_node(inner, ["x"], ["z"], domain=domain), helper.make_node(inner, ["z"], ["y"], domain=domain)]
        _function(proto, f"F{level}", nodes, call=level == 0)


@_change
def _function_deep(proto: onnx.ModelProto) -> None:
    for level in range(3000):
        node = (
            helper.make_node(f"F{level + 1}", ["x"], ["y"], domain="evil")
            if level < 2999
            else helper.make_node("Identity", ["x"], ["y"])
        )
        _function(proto, f"F{level}", [node], call=level == 0)


@_change
def _function_empty(proto: onnx.ModelProto) -> None:
    _function(proto, "Again", [])


@_change
def _function_overrides(proto: onnx.ModelProto) -> None:
    proto.functions.append(
        helper.make_function(
            "", "Add", ["x", "z"], ["y"], [helper.make_node("Sub", ["x", "z"], ["y"])], [helper.make_opsetid("", 17)]
        )
    )


@_change
def _reference_outside(proto: onnx.ModelProto) -> None:
    proto.graph.node[3].attribute.add(name="axis", ref_attr_name="nowhere", type=AttributeProto.INT)


@_change
def _attributes_twice(proto: onnx.ModelProto) -> None:
    for _ in range(2):
        proto.graph.node[3].attribute.add(name="axis", i=1, type=AttributeProto.INT)


@_change
def _attribute_untyped(proto: onnx.ModelProto) -> None:
    proto.graph.node[3].attribute.add(name="axis", i=1)


@_change
def _attribute_kind(proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        for attribute in node.attribute:
            attribute.type, attribute.s = AttributeProto.STRING, b"\xff\xfe"


@_change
def _many_nodes(proto: onnx.ModelProto) -> None:
    for number in range(100_000):
        proto.graph.node.add(
            op_type="Identity", input=["input_ids" if not number else f"chain{number - 1}"], output=[f"chain{number}"]
        )
    proto.graph.output.append(helper.make_tensor_value_info("chain99999", 7, ["batch_size", "sequence_length"]))


@_change
def _deep_bodies(proto: onnx.ModelProto) -> None:
    graph = helper.make_graph([], "leaf", [], [helper.make_tensor_value_info("input_ids", 7, None)])
    for level in range(30):
        node = helper.make_node("If", ["yes"], [f"made{level}"], then_branch=graph, else_branch=graph if level < 8 else None)
        graph = helper.make_graph([node], f"g{level}", [], [helper.make_tensor_value_info(f"made{level}", 7, None)])
    proto.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    proto.graph.node.extend(graph.node)


@_change
def _training(proto: onnx.ModelProto) -> None:
    proto.training_info.add().algorithm.CopyFrom(proto.graph)


@_change
def _value_info(proto: onnx.ModelProto) -> None:
    for node in proto.graph.node:
        proto.graph.value_info.append(helper.make_tensor_value_info(node.output[0], 8, [2**62, -3, "²"]))


@_change
def _quantization_annotation(proto: onnx.ModelProto) -> None:
    proto.graph.quantization_annotation.add(tensor_name="nowhere").quant_parameter_tensor_names.add(
        key="SCALE_TENSOR", value="none"
    )


@_change
def _metadata_twice(proto: onnx.ModelProto) -> None:
    for value in ("{}", "[]"):
        proto.metadata_props.add(key="onnxfuse", value=value)


def _function(proto: onnx.ModelProto, name: str, nodes: list[onnx.NodeProto], *, call: bool = True) -> None:
    name = "Again" if name == "evil" else name
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("evil", 1)]
    proto.functions.append(helper.make_function("evil", name, ["x"], ["y"], nodes, imports))
    if call:
        proto.opset_import.add(domain="evil", version=1)
        proto.graph.node.add(op_type=name, domain="evil", input=["input_ids"], output=["evil_output"])
        proto.graph.output.append(helper.make_tensor_value_info("evil_output", 7, ["batch_size", "sequence_length"]))

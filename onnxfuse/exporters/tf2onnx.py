"""ONNX from TensorFlow, through tf2onnx, with what it lacks for encoders.

Weights go round it: each becomes an input of TensorFlow's graph, and an initializer of the result. tf2onnx copies every weight in
every one of its passes (20 GB and two minutes for bert-base), and graphs that hold them end at 2 GB.

TensorFlow writes GELU with Erfc, for which tf2onnx 1.17 has no handler. It writes a choice (SelectV2) as two products, and takes
Einsum apart into a dozen nodes of shape arithmetic; ONNX has operators for both.

Source: tf2onnx 1.17 (``tf_loader``, ``process_tf_graph``, ``optimizer``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxfuse.errors import ExportError, MissingExtraError
from onnxfuse.exporters.api import Exporter
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.io import onnx_file
from onnxfuse.io.quiet import silent

LEFT_OUT = ("einsum_optimizer", "remove_back_to_back")
"""Passes of tf2onnx that are not run. The second joins two Reshapes, of which the other copies a size of what the first made."""

Weights = dict[str, np.ndarray]


def write(checkpoint: Checkpoint, path: Path, opset: int) -> None:
    """Write a TensorFlow checkpoint to ``path``.

    Raises:
        ExportError: a TensorFlow operator has no ONNX form.
        MissingExtraError: tf2onnx is not installed.
    """
    try:
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("exporting a TensorFlow model to ONNX", "tf") from error
    with silent():
        proto, weights = _convert(checkpoint.module.get_concrete_function(), opset)
    _require_known(proto, checkpoint.name)
    model = ir.from_proto(proto)
    _store(model, weights)
    for value, name in zip(model.graph.outputs, checkpoint.outputs, strict=True):
        value.name = name
    onnx_file.save(model, path)


def _convert(concrete: Any, opset: int) -> tuple[onnx.ModelProto, Weights]:
    """The graph with its weights as inputs, and the weights by the names of those."""
    import tensorflow as tf
    from tf2onnx import optimizer, tf_loader
    from tf2onnx.tfonnx import process_tf_graph

    inputs = [tensor.name for tensor in concrete.inputs if tensor.dtype != tf.resource]
    outputs = [tensor.name for tensor in concrete.outputs]
    frozen = tf_loader.from_function(concrete, inputs, outputs, large_model=True)
    weights = _lift(frozen)
    inputs += [f"{name}:0" for name in weights]
    with tf.Graph().as_default():
        tf.import_graph_def(frozen, name="")
        frozen = tf_loader.tf_optimize(inputs, outputs, frozen)
    handlers: dict[str, Any] = {"Erfc": (erfc, []), "SelectV2": (_where, [])}
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(frozen, name="")
        converted = process_tf_graph(
            graph,
            opset=opset,
            input_names=inputs,
            output_names=outputs,
            continue_on_error=True,
            tensors_to_rename={name: name.split(":")[0] for name in inputs},
            custom_op_handlers=handlers,
        )
        passes = {name: made for name, made in optimizer._get_optimizers().items() if name not in LEFT_OUT}
        return optimizer.optimize_graph(converted, catch_errors=False, optimizers=passes).make_model("TensorFlow"), weights


def _lift(graph: Any) -> Weights:
    """Make every float constant with a dimension an input of a TensorFlow graph, in place; returns their values."""
    import tensorflow as tf

    weights = {}
    for node in graph.node:
        if node.op != "Const" or node.attr["dtype"].type != tf.float32.as_datatype_enum:
            continue
        tensor = node.attr["value"].tensor
        if tensor.tensor_shape.dim:
            weights[node.name] = tf.make_ndarray(tensor)
            node.op = "Placeholder"
            node.attr["shape"].shape.CopyFrom(tensor.tensor_shape)
            del node.attr["value"]
    return weights


def _store(model: ir.Model, weights: Weights) -> None:
    """Make the inputs that stand for weights initializers; those that nothing reads go."""
    for value in list(model.graph.inputs):
        if value.name in weights:
            model.graph.inputs.remove(value)
            if value.uses():
                value.const_value = ir.tensor(weights[value.name], name=value.name)
                model.graph.register_initializer(value)


def erfc(context: Any, node: Any, name: str, args: Any) -> Any:
    """erfc(x) = 1 - erf(x)."""
    erf = context.make_node("Erf", list(node.input))
    one = context.make_const(f"{name}/one", np.ones((), dtype=np.float32))
    node.type = "Sub"
    context.replace_inputs(node, [one.output[0], erf.output[0]])
    return node


def _where(context: Any, node: Any, name: str, args: Any) -> Any:
    """SelectV2(condition, a, b) = Where(condition, a, b): both broadcast as numpy does."""
    node.type = "Where"
    return node


def _require_known(proto: onnx.ModelProto, name: str) -> None:
    """tf2onnx leaves an operator that it does not know as it is; raises ExportError for the first."""
    opset = {item.domain: item.version for item in proto.opset_import}[""]
    for node in proto.graph.node:
        if not node.domain and not onnx.defs.has(node.op_type, max_inclusive_version=opset, domain=""):
            raise ExportError(
                f"{name} uses TensorFlow's operator {node.op_type} (at {node.name.split('__')[0]}), which "
                f"tf2onnx cannot write at opset {opset}; replace it in the model"
            )


TF2ONNX = Exporter("tf2onnx", "tf", 18, range(14, 19), write, default=True)

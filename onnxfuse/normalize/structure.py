"""Whole-graph steps that need no pattern: inlining, constants, dead nodes, duplicates, opset."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import version_converter

from onnxfuse.errors import ModelError, first_line
from onnxfuse.io.names import name_apart
from onnxfuse.io.repair import FOREIGN
from onnxfuse.operators import is_known, is_runnable
from onnxfuse.rewrite.analysis import constant, stored

SMALL_INITIALIZER = 64
"""Elements up to which two equal initializers count as one when duplicates are merged."""


def simplify(model: ir.Model, *, dropout: bool = False) -> None:
    """Inline model-local functions, lift Constant nodes to initializers, drop Identity, unused nodes, and Dropout unless told.

    Graphs inside nodes (branches and loop bodies) keep their nodes: what they read and give is nobody else's to change.

    Raises:
        ModelError: a function cannot be inlined.
    """
    _inline(model)
    _lift_constants(model.graph)
    common.LiftSubgraphInitializersToMainGraphPass()(model)
    if not dropout:
        _bypass_dropout(model.graph)
    _bypass_identities(model.graph)
    common.RemoveUnusedNodesPass()(model)
    name_apart(model)


def _inline(model: ir.Model) -> None:
    opset = model.opset_imports.get("", 0)
    for name, function in tuple(model.functions.items()):
        own = function.opset_imports.get("", opset)
        changed = {node.op_type for node in function.all_nodes() if not node.domain and _since(node, own) != _since(node, opset)}
        if is_known(function.domain, function.name):
            del model.functions[name]
        elif changed:
            raise ModelError(
                f"function {function.name!r} uses {', '.join(sorted(changed))} of opset {own}, which is another "
                f"operator in the model's own opset {opset}; export it again with one opset"
            )
        elif set(function.inputs) & set(function.outputs):
            raise ModelError(f"function {function.name!r} gives an input back as an output; export the model again")
        else:
            function.opset_imports[""] = opset
    try:
        ir.passes.Sequential(common.InlinePass(), common.RemoveUnusedFunctionsPass())(model)
    except ir.passes.PassError as error:
        raise ModelError(f"the model's functions cannot be inlined: {first_line(error.__cause__ or error)}") from error


def _since(node: ir.Node, opset: int) -> int:
    """The opset that brought the operator which a node of this opset is; 0 for none."""
    known = onnx.defs.has(node.op_type, opset)
    return onnx.defs.get_schema(node.op_type, opset).since_version if known else 0


def _lift_constants(graph: ir.Graph) -> None:
    """Make an initializer of every Constant node, except one whose output is the graph's."""
    for node in graph:
        tensor = _held(node)
        if tensor is None or node.outputs[0].is_graph_output():
            continue
        value = node.outputs[0]
        lifted = ir.Value(
            name=value.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()), const_value=tensor
        )
        value.name = None
        graph.register_initializer(lifted)
        ir.convenience.replace_all_uses_with(value, lifted)
        graph.remove(node, safe=True)


NUMBERS = {"value_int": np.int64, "value_ints": np.int64, "value_float": np.float32, "value_floats": np.float32}


def _held(node: ir.Node) -> ir.TensorProtocol | None:
    """What a Constant node holds; None for another node, and for one without: it gave an attribute that a call left out."""
    if node.op_type != "Constant" or node.domain or len(node.attributes) != 1:
        return None
    [(name, attribute)] = node.attributes.items()
    if name == "value":
        return attribute.as_tensor()
    if name in ("value_string", "value_strings"):
        texts = [attribute.value] if name == "value_string" else attribute.value
        content = [text.encode() for text in texts]
        return ir.StringTensor(content, shape=ir.Shape([] if name == "value_string" else [len(content)]))
    return ir.tensor(np.array(attribute.value, dtype=NUMBERS[name]))


def merge_duplicates(model: ir.Model) -> bool:
    """Compute equal things once: equal small initializers become one, then equal nodes. Returns whether any were.

    Graphs inside nodes stay as they are.
    """
    merged = _merge_initializers(model.graph) + _merge_nodes(model.graph, model.opset_imports[""])
    common.RemoveUnusedNodesPass()(model)
    return merged > 0


def _merge_initializers(graph: ir.Graph) -> int:
    before = len(graph.initializers)
    seen: dict[tuple, ir.Value] = {}
    for value in tuple(graph.initializers.values()):
        tensor = stored(value)
        if tensor is None or tensor.size > SMALL_INITIALIZER or value.is_graph_output():
            continue
        content = tuple(tensor.string_data()) if tensor.dtype == ir.DataType.STRING else tensor.tobytes()  # type: ignore[attr-defined]
        kept = seen.setdefault((tensor.dtype, tuple(tensor.shape.numpy()), content), value)
        if kept is not value:
            ir.convenience.replace_all_uses_with(value, kept)
            del graph.initializers[value.name or ""]
    return before - len(graph.initializers)


def _merge_nodes(graph: ir.Graph, opset: int) -> int:
    count = 0
    seen: dict[tuple, ir.Node] = {}
    for node in graph:
        kept = seen.setdefault(_content(node), node) if is_deterministic(node, opset) else node
        if kept is not node:
            _replace(graph, node, zip(node.outputs, kept.outputs, strict=True))
            count += 1
    return count


def is_deterministic(node: ir.Node, opset: int) -> bool:
    """Whether equal inputs give equal outputs. What holds a graph may hold anything, and of other domains nothing is known."""
    if node.domain or not onnx.defs.has(node.op_type, opset):
        return False
    schema: Any = onnx.defs.get_schema(node.op_type, opset)  # onnx's stubs lack half of it
    return schema.node_determinism == onnx.defs.OpSchema.NodeDeterminism.Deterministic


def _content(node: ir.Node) -> tuple:
    """What equal nodes have alike: operator, inputs, attributes, and which of the outputs they give."""
    attributes = tuple(
        sorted(
            (name, ir.to_proto(attribute).SerializeToString(deterministic=True)) for name, attribute in node.attributes.items()
        )
    )
    return (node.op_identifier(), tuple(node.inputs), attributes, tuple(bool(value.name) for value in node.outputs))


def _bypass_identities(graph: ir.Graph) -> None:
    """Read what an Identity reads instead; one stays that gives a graph output a name which nothing else can carry."""
    for node in graph:
        if node.op_type == "Identity" and not node.domain and node.inputs[0] is not None:
            _read_instead(graph, node.outputs[0], node.inputs[0])


def _replace(graph: ir.Graph, node: ir.Node, pairs: Iterable[tuple[ir.Value, ir.Value]]) -> None:
    """Remove a node; of each pair the second is read where the first, one of its outputs, was."""
    for old, new in pairs:
        _read_instead(graph, old, new)
        if old.is_graph_output():
            carrier = ir.node("Identity", [new])
            carrier.outputs[0].type, carrier.outputs[0].shape = old.type, old.shape
            graph.insert_before(node, carrier)
            _hand_over(graph, old, carrier.outputs[0])
    graph.remove(node, safe=True)


def _read_instead(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Have every node read ``new`` instead of ``old``.

    If ``old`` is an output of the graph, ``new`` becomes that, by its name; not if it is an input, an initializer or an output
    already.
    """
    for user, at in tuple(old.uses()):
        user.replace_input_with(at, new)
    if old.is_graph_output() and new.producer() is not None and not new.is_graph_output():
        _hand_over(graph, old, new)


def _hand_over(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Make ``new`` the graph output that ``old`` was, with its name, type and shape."""
    new.name, old.name = old.name, None
    new.type, new.shape = old.type, old.shape
    for at, value in enumerate(graph.outputs):
        if value is old:
            graph.outputs[at] = new


def convert(model: ir.Model, opset: int) -> None:
    """Raise the model to ``opset``; a model already above it is left as it is.

    Raises:
        ModelError: onnx's version converter cannot do it.
    """
    source = model.opset_imports.get("", 0)
    if source >= opset:
        return
    unlike = next(filter(None, (_unlike(node, source) for node in model.graph.all_nodes())), None)
    if unlike:
        raise ModelError(
            f"the model has {unlike}, which opset {opset} has not in this form; export it again with --opset {opset}"
        )
    with _set_apart(model, source), _logged("onnxscript.version_converter") as reasons:
        try:
            version_converter.convert_version(model, opset, fallback=True)
        except (RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
            reasons.append(error)
    gone = {node.op_type for node in model.graph.all_nodes() if not node.domain and not is_runnable(node.op_type, opset)}
    if reasons or gone or model.opset_imports.get("") != opset:
        why = first_line(reasons[-1]) if reasons else f"ONNX Runtime has no {', '.join(sorted(gone)) or 'such model'} there"
        raise ModelError(
            f"the model cannot be brought from opset {source} to {opset}: {why}; "
            "optimize it for a target of a lower opset, or export it again"
        )
    _lift_constants(model.graph)  # it writes constants as nodes
    common.RemoveUnusedNodesPass()(model)


def _unlike(node: ir.Node, opset: int) -> str | None:
    """What a node of this opset is that newer ones have not in this form, where the converter takes both for the same."""
    if node.domain:
        return None
    if opset < 9 and node.op_type == "Scan":
        return "a Scan over a batch"
    if opset < 12 and _gives_mask(node):
        return "a Dropout that gives its mask, zeros at inference"
    if opset < 13 and node.op_type == "Hardmax" and node.attributes.get_int("axis", 1) != -1:
        return "a Hardmax over all axes from one on"
    return None


class _Reasons(logging.Handler):
    """Keeps the exceptions that a library logs where it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.errors.append(record.exc_info[1])


@contextmanager
def _logged(name: str) -> Iterator[list[BaseException]]:
    """The exceptions that a library's logger is told of; nothing it says goes further."""
    logger, handler = logging.getLogger(name), _Reasons()
    level, passed_on = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    try:
        yield handler.errors
    finally:
        logger.removeHandler(handler)
        logger.level, logger.propagate = level, passed_on


@contextmanager
def _set_apart(model: ir.Model, opset: int) -> Iterator[None]:
    """Keep operators that only ONNX Runtime has in the standard's domain at this opset from the converter, which knows none."""
    for node in model.graph.all_nodes():
        if not node.domain and not onnx.defs.has(node.op_type, opset):
            node.domain = FOREIGN
            model.opset_imports[FOREIGN] = 1
    yield
    for node in model.graph.all_nodes():
        if node.domain == FOREIGN:
            node.domain = ""
    model.opset_imports.pop(FOREIGN, None)


def _bypass_dropout(graph: ir.Graph) -> None:
    """Dropout does nothing at inference: its training_mode is absent or false. One with a used mask or a runtime flag stays."""
    for node in graph:
        if node.op_type != "Dropout" or node.domain or node.inputs[0] is None:
            continue
        flag = node.inputs[2] if len(node.inputs) > 2 else None
        known = constant(flag)
        training = flag is not None and (known is None or bool(known))
        if not training and not _gives_mask(node):
            _replace(graph, node, [(node.outputs[0], node.inputs[0])])


def _gives_mask(node: ir.Node) -> bool:
    """Whether a node of the standard's domain is a Dropout whose mask is read."""
    mask = node.outputs[1] if node.op_type == "Dropout" and len(node.outputs) > 1 else None
    return mask is not None and (bool(mask.uses()) or mask.is_graph_output())


def tidy(model: ir.Model) -> None:
    """Leave what a reader expects: sorted nodes, opsets that are used and declared, no stale annotations."""
    for node in model.graph:
        model.opset_imports.setdefault(node.domain, 1)
        for value in node.outputs:
            if not value.is_graph_output():
                value.type = value.shape = None
    ir.passes.Sequential(common.TopologicalSortPass(), common.RemoveUnusedOpsetsPass())(model)
    forget_origins(model)


def forget_origins(model: ir.Model) -> None:
    """Drop the exporter's notes on each node: stack traces with paths of the machine it ran on, a megabyte of them."""
    common.ClearMetadataAndDocStringPass()(model)

"""Whole-graph steps that need no pattern: inlining, constants, dead nodes, duplicates, opset."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import version_converter

from onnxfuse.errors import ModelError
from onnxfuse.files import first_line

SMALL_INITIALIZER = 64
"""Elements up to which two equal initializers count as one when duplicates are merged."""


def simplify(model: ir.Model, *, dropout: bool = False) -> None:
    """Inline model-local functions, lift Constant nodes to initializers, drop Identity, unused nodes, and Dropout unless told."""
    ir.passes.Sequential(
        common.InlinePass(),
        _lift_constants(),
        common.LiftSubgraphInitializersToMainGraphPass(),
    )(model)
    if not dropout:
        _bypass_dropout(model)
    ir.passes.Sequential(common.IdentityEliminationPass(), common.RemoveUnusedNodesPass())(model)


def _lift_constants() -> ir.passes.InPlacePass:
    return common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)


def merge_duplicates(model: ir.Model) -> None:
    """Compute equal things once: equal small initializers become one, then equal nodes."""
    with _errors_only("onnx_ir"):  # it warns of every initializer that a caller may override
        ir.passes.Sequential(
            common.DeduplicateInitializersPass(size_limit=SMALL_INITIALIZER),
            common.CommonSubexpressionEliminationPass(),
            common.RemoveUnusedNodesPass(),
        )(model)


@contextmanager
def _errors_only(name: str) -> Iterator[None]:
    """A library's warnings are about its own doings, not the user's."""
    logger = logging.getLogger(name)
    level, logger.level = logger.level, logging.ERROR
    try:
        yield
    finally:
        logger.level = level


def convert(model: ir.Model, opset: int) -> None:
    """Raise the model to ``opset``; a model already above it is left as it is.

    Raises:
        ModelError: onnx's version converter cannot do it.
    """
    if model.opset_imports.get("", 0) >= opset:
        return
    try:
        with _errors_only("onnxscript.version_converter"):  # it reports that it falls back to onnx's own converter
            version_converter.convert_version(model, opset, fallback=True)
    except (RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
        raise ModelError(f"the model cannot be brought from opset {model.opset_imports.get('')} to {opset}: "
                         f"{first_line(error)}; export it again with --opset {opset}") from error
    if model.opset_imports.get("") != opset:
        raise ModelError(f"the model stayed at opset {model.opset_imports.get('')}, wanted {opset}; "
                         f"export it again with --opset {opset}")
    ir.passes.Sequential(_lift_constants(), common.RemoveUnusedNodesPass())(model)  # it writes constants as nodes


def _bypass_dropout(model: ir.Model) -> None:
    """Dropout does nothing at inference: its training_mode is absent or false. One with a used mask or a runtime flag stays."""
    for node in model.graph:
        if node.op_type != "Dropout" or node.domain:
            continue
        flag = node.inputs[2] if len(node.inputs) > 2 else None
        training = flag is not None and (flag.const_value is None or bool(flag.const_value.numpy()))
        mask_read = len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output())
        if training or mask_read:
            continue
        identity = ir.node("Identity", [node.inputs[0]])
        identity.outputs[0].name, node.outputs[0].name = node.outputs[0].name, None
        identity.outputs[0].type, identity.outputs[0].shape = node.outputs[0].type, node.outputs[0].shape
        model.graph.insert_after(node, identity)
        ir.convenience.replace_all_uses_with(node.outputs[0], identity.outputs[0], replace_graph_outputs=True)
        model.graph.remove(node, safe=True)


def tidy(model: ir.Model) -> None:
    """Leave what a reader expects: sorted nodes, opsets that are used and declared, no stale annotations."""
    for node in model.graph:
        if node.domain:
            model.opset_imports.setdefault(node.domain, 1)
        for value in node.outputs:
            if not value.is_graph_output():
                value.type = value.shape = None
    ir.passes.Sequential(common.TopologicalSortPass(), common.RemoveUnusedOpsetsPass())(model)
    forget_origins(model)


def forget_origins(model: ir.Model) -> None:
    """Drop the exporter's notes on each node: stack traces with paths of the machine it ran on, a megabyte of them."""
    common.ClearMetadataAndDocStringPass()(model)

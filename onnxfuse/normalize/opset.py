"""One opset for the whole model: raised by onnxscript's and onnx's converters, refused where they would change the meaning."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import version_converter

from onnxfuse.errors import ModelError, first_line
from onnxfuse.io.repair import FOREIGN
from onnxfuse.normalize.structure import gives_mask, lift_constants
from onnxfuse.operators import is_runnable
from onnxfuse.rewrite.passes import Context, Result


@dataclass(frozen=True)
class ConvertOpset:
    """Raise the model to ``opset``; one above it already stays.

    Raises:
        ModelError: it cannot be raised.
    """

    opset: int
    name: str = "convert-opset"

    def apply(self, model: ir.Model, context: Context) -> Result:
        before = model.opset_imports.get("", 0)
        convert(model, self.opset)
        context.forget()
        return Result(model.opset_imports[""] != before)


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
    lift_constants(model.graph)  # it writes constants as nodes
    common.RemoveUnusedNodesPass()(model)


def _unlike(node: ir.Node, opset: int) -> str | None:
    """What a node of this opset is that newer ones have not in this form, where the converter takes both for the same."""
    if node.domain:
        return None
    if opset < 9 and node.op_type == "Scan":
        return "a Scan over a batch"
    if opset < 12 and gives_mask(node):
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

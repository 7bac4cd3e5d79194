"""Write the graph after every rewrite, without its weights: what a rule did, to look at in Netron."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from onnxfuse.errors import UsageError
from onnxfuse.rewrite.driver import Application
from onnxfuse.rewrite.lines import Line

CHANGES = "changes.txt"
"""The list of what each rewrite changed."""

LARGE = 1024
"""Bytes from which a weight is left out; shapes and small constants tell more."""


class Dump:
    """A listener for ``fuse``: one ``NNNN-RULE.onnx`` for each rewrite, and ``changes.txt`` with what each changed."""

    def __init__(self, model: ir.Model, folder: Path) -> None:
        """``folder`` is made when it is not there; files of an earlier dump in it are replaced.

        Raises:
            UsageError: it holds files of such names that no dump wrote.
        """
        self._model = model
        self._folder = folder
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(folder.glob("[0-9][0-9][0-9][0-9]-*.onnx"))
        if others := [path for path in there if path.stem not in _dumped(folder)]:
            raise UsageError(f"--dump {folder}: {others[0].name} in it is of no earlier dump; give an empty folder")
        for old in (*there, folder / CHANGES):
            old.unlink(missing_ok=True)

    def __call__(self, application: Application) -> None:
        self._count += 1
        name = f"{self._count:04}-{application.rule}"
        onnx.save(without_weights(self._model), self._folder / f"{name}.onnx")
        with (self._folder / CHANGES).open("a", encoding="utf-8") as file:
            lines = [
                f"{name} at {application.value}",
                *(f"  - {_text(line)}" for line in application.before),
                *(f"  + {_text(line)}" for line in application.after),
            ]
            file.write("\n".join(lines) + "\n")


def _dumped(folder: Path) -> set[str]:
    """The names that an earlier dump wrote, by its list of changes."""
    path = folder / CHANGES
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return {line.partition(" at ")[0] for line in text.splitlines() if not line.startswith(" ")}


def _text(line: Line) -> str:
    return f"{', '.join(line.outputs)} = {line.op}({', '.join(line.inputs)})"


def without_weights(model: ir.Model) -> onnx.ModelProto:
    """The model as a proto whose large weights point to a file that is not there."""
    kept = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None and tensor.nbytes >= LARGE:
            kept[value] = tensor
            value.const_value = ir.ExternalTensor(
                "weights-left-out", 0, tensor.nbytes, tensor.dtype, name=value.name or "", shape=ir.Shape(tensor.shape.numpy())
            )
    try:
        return ir.to_proto(model)
    finally:
        for value, tensor in kept.items():
            value.const_value = tensor

"""What a runtime is to the rest of onnxfuse, how a model is opened, and what it then is: a function from feeds to outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxfuse.config import THREADS, Bounds, Config
from onnxfuse.errors import ModelError

Feeds = dict[str, np.ndarray]
Outputs = dict[str, np.ndarray]
Runner = Callable[[Feeds], Outputs]


@dataclass(frozen=True)
class Settings(Config):
    """What to open a model with. The defaults are those that users of plain ONNX Runtime get.

    Args:
        runtime: the name of a ``Runtime``.
        threads: for one call; 0 leaves the choice to the runtime, among the cores that the process may use.
        denormals_as_zero: floats under 1.2e-38 count as zero. Softmax under a mask makes them, and they are slow.
        unclipped: u8 x s8 products are exact where the CPU clips them (before VNNI), as slow as u8 x u8.
        spinning: threads wait for the next call awake for some milliseconds: faster calls, a busier machine.

    Raises:
        UsageError: a value of another type, or more threads than any machine has.
    """

    within: ClassVar[Bounds] = {"threads": (0, THREADS)}

    runtime: str = "ort"
    threads: int = 0
    denormals_as_zero: bool = False
    spinning: bool = True
    unclipped: bool = False

    def __str__(self) -> str:
        denormals = "as zero" if self.denormals_as_zero else "kept"
        return (
            f"{self.runtime}, {self.threads or 'default'} threads that {'spin' if self.spinning else 'sleep'} between calls, "
            f"denormals {denormals}"
        )


def anywhere() -> None:
    """What a runtime that every machine has requires."""


@dataclass(frozen=True)
class Runtime:
    """One way to run model files.

    Args:
        name: as ``--runtime`` takes it.
        label: for people.
        open: a file as a runner, where ``require`` did not raise. Raises ModelError.
        require: quick, and raises MissingExtraError or ModelError where this machine or environment has it not.
        suffixes: of the files that it takes.
        computes: the precision that it computes in, by the one that a file is stored in, where they differ.
        stored: the precision of a file that is not ONNX; for ONNX the graph tells.
        declares: the inputs, outputs and metadata of a file that is not ONNX, as a model without nodes. Raises as ``open``.
        integers: of int8 models, those that it multiplies in whole numbers: with activations quantized as each run finds them
            (``dynamic``), or by scales from calibration (``static``). The others it computes in float, right and slow.
        static: the format of int8 with scales from calibration that it runs fastest, a name of ``config.FORMATS``.
        target: the target that it runs fastest, a name of ``targets.find``.
        many: a file as a runner of which so many calls are made at a time, each computed by one thread alone, so that no answer
            depends on their number; None where it has no such.
        rare: of hardware that few machines have: where it is not there, nobody misses it.
        instead_of: the runtime that it brings in another way, as fast: unasked it is measured only where that one is missing.
    """

    name: str
    label: str
    open: Callable[[Path, Settings], Runner]
    suffixes: tuple[str, ...] = (".onnx",)
    computes: Mapping[str, str] = field(default_factory=dict)
    stored: Callable[[Path], str] | None = None
    declares: Callable[[Path], ir.Model] | None = None
    integers: tuple[str, ...] = ("dynamic", "static")
    static: str = "auto"
    target: str = "cpu"
    require: Callable[[], object] = anywhere
    many: Callable[[Path, Settings, int], Runner] | None = None
    instead_of: str = ""
    rare: bool = False

    def precision(self, stored: str) -> str:
        """What it computes in when a file is stored in ``stored`` (fp32, fp16, bf16 or int8)."""
        return self.computes.get(stored, stored)


def require_inputs(wanted: set[str], feeds: Feeds) -> None:
    """Raises ModelError when an input of the model is not among ``feeds``."""
    if missing := sorted(wanted - set(feeds)):
        raise ModelError(f"the model needs {', '.join(missing)}; got {', '.join(feeds) or 'nothing'}")

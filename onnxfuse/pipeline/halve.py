"""A fused model in half precision, that passes: float16 but for the nodes that must stay float32, or weights in bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.errors import ModelError, ParityError, UncalibratedError
from onnxfuse.evaluation import calibrated
from onnxfuse.evaluation.sources import default_calibration
from onnxfuse.half import search
from onnxfuse.half.convert import FEW, key_of, to_bfloat16, to_float16
from onnxfuse.half.peaks import overflowing, peaks
from onnxfuse.io import atomic, folders, onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.quantization.linears import integer_node
from onnxfuse.runtime import Feeds, Outputs
from onnxfuse.verify import parity
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from onnxfuse.verify.opened import Opened
from onnxfuse.verify.parity import Parity
from onnxfuse.verify.profile import BATCH, LENGTH
from onnxfuse.verify.verdict import Real, compare_files, profile_of_both

PRECISIONS = folders.HALVED
"""What a model can be brought to, and what its file is called where nobody says."""

KIND = {"fp16": "half", "bf16": "bfloat16"}
"""The row of ``TOLERANCES`` that it is held to."""


@dataclass(frozen=True)
class Single:
    """A node that stays float32.

    Args:
        name, operator: its own.
        peak: the largest number that it computes with on the inputs that were tried, masks as they are in float16.
        overflows: whether float16 does not hold that; else the outputs would be too far from the original.
    """

    name: str
    operator: str
    peak: float
    overflows: bool


@dataclass(frozen=True)
class Half:
    """What became of a model.

    Args:
        precision: one of ``PRECISIONS``.
        count: of float16 how many nodes are; of bfloat16 how many weights.
        kept: nodes that could be float16, and stay float32.
        data: the real inputs that it was judged on, beside random ones; empty where there are none.
    """

    precision: str
    count: int
    kept: tuple[Single, ...] = ()
    data: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def require_halvable(model: ir.Model, precision: str, name: object) -> None:
    """Raises ModelError: nothing of it is float32, or it is int8."""
    if integer_node(model) is not None:
        raise ModelError(f"{name} is an int8 model, which is smaller than {precision}; give the float model")
    held = (value.dtype for value in (*model.graph.initializers.values(), *model.graph.inputs))
    if ir.DataType.FLOAT not in held:
        raise ModelError(f"{name} holds no float32 numbers, so that there is nothing to bring to {precision}")


def halve(
    source: Opened, fused: ir.Model, precision: str, zeros: Sequence[str] = (), progress: Progress = silent, *, io: bool = False
) -> tuple[ir.Model, Half]:
    """A fused float32 model in half precision, and what it took; ``fused`` stays as it is.

    Args:
        source: what it was fused from, and is compared with.
        precision: a key of ``PRECISIONS``.
        zeros: as of ``verdict.compare_files``.
        io: whether float32 inputs and outputs become float16, too.

    Raises:
        ModelError: see ``require_halvable``, or nothing would be smaller.
        ParityError: it does not pass with any nodes in float32, or only with all of them.
    """
    model = fused.clone()
    if precision == "bf16":
        if not (count := to_bfloat16(model)):
            raise ModelError(f"{source} has no float32 weight of {FEW} numbers or more, so that bfloat16 makes nothing smaller")
        return model, Half(precision, count)
    profile = profile_of_both(source, fused, source.runner())
    real = None if profile.only(LENGTH) else _real(source, profile.only(BATCH) or calibrated.ROWS)
    with atomic.scratch() as folder:
        progress("finding how large numbers get")
        inputs = [case.feeds for case in (*grid(profile), *(() if real is None else real.cases))]
        found = peaks(model, inputs, folder)
        (folder / "peaks.onnx").unlink()

        def judge(kept: Sequence[str]) -> Parity:
            tried = model.clone()
            to_float16(tried, kept)
            opened = Opened(folder / "tried.onnx", onnx_file.save(tried, folder / "tried.onnx"))
            return _judged(source, opened, zeros, real)

        progress("comparing with the original")
        kept = search.fewest(found, judge, progress)
    kept.parity.require(f"{precision} is too far from the original, with every node in float32, too", "nothing was saved")
    if len(kept.keys) == len(found):
        raise ParityError(
            f"{source}: no node can be float16 without the outputs being too far from the original; nothing "
            "was saved; choose bf16, whose range is that of float32"
        )
    by_key = {key_of(node): node for node in model.graph}
    over = set(overflowing(found))
    single = tuple(Single(key, by_key[key].op_type, found[key], key in over) for key in kept.keys)
    count = to_float16(model, kept.keys, io=io)
    return model, Half(precision, count, single, "" if real is None else real.name)


def _real(source: Opened, rows: int) -> Real | None:
    """Sentences, for a model with a tokenizer."""
    try:
        return calibrated.real_of(default_calibration(source.path, source.model), rows)
    except UncalibratedError:
        return None


def _judged(source: Opened, tried: Opened, zeros: Sequence[str], real: Real | None) -> Parity:
    """On random inputs, and on real ones."""
    found = compare_files(source, tried, KIND["fp16"], zeros=zeros)
    if real is None or found.failures:
        return found
    return parity.compare(expect(source.runner(), real.cases), tried.runner(), KIND["fp16"])


def compare_taking_float32(source: Opened, half: Opened) -> Parity:
    """A model that takes and gives float16, held against the float32 one that it comes from, between casts."""
    run, taken = half.runner(), {value.name for value in half.model.graph.inputs if value.dtype == ir.DataType.FLOAT16}

    def between(feeds: Feeds) -> Outputs:
        outputs = run({name: array.astype(np.float16) if name in taken else array for name, array in feeds.items()})
        return {name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in outputs.items()}

    return parity.compare(expect(source.runner(), grid(source.profile)), between, KIND["fp16"])

"""Which format a static model takes: the faster one on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.io import onnx_file
from onnxfuse.io.atomic import scratch
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.quantization.prepare import Prepared
from onnxfuse.quantization.write import DYNAMIC, QDQ, QOPERATOR, write
from onnxfuse.runtime import open_runner

ROUNDS = 12


@dataclass(frozen=True)
class FormatChoice:
    """The format to write, and the milliseconds of each that was measured to choose it."""

    format: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)


def choose_format(prepared: Prepared, batch: int, data: Dataset | None, progress: Progress = silent) -> FormatChoice:
    """Choose by what the scheme says, or by speed on ``data``'s first batch.

    QDQ is written in standard operators, which every runtime reads; the other replaces it only where its whole 95 % interval is
    faster.
    """
    scheme = prepared.scheme
    if not scheme.static or data is None:
        return FormatChoice(DYNAMIC)
    if scheme.format != "auto":
        return FormatChoice(scheme.format)
    progress("measuring both static formats")
    with scratch() as folder:
        runners = {}
        for format in (QDQ, QOPERATOR):
            path = folder / f"{format}.onnx"
            onnx_file.save(write(prepared, format=format), path)
            runners[format] = open_runner(path)
        timings = benchmark.measure(runners, [next(data.batches(batch))], rounds=ROUNDS)
    faster = benchmark.ratio(timings[QDQ], timings[QOPERATOR]).low > 1
    return FormatChoice(QOPERATOR if faster else QDQ, {format: timing.p50 for format, timing in timings.items()})

"""Which form a static model takes: the faster one on this machine."""

from __future__ import annotations

import tempfile
from pathlib import Path

from onnxfuse.evaluate.dataset import Dataset
from onnxfuse.io import onnx_file
from onnxfuse.io.progress import Progress, silent
from onnxfuse.measure import benchmark
from onnxfuse.quantize.prepare import Prepared
from onnxfuse.quantize.write import DYNAMIC, OPERATOR, QDQ, write
from onnxfuse.runtime import open_runner

ROUNDS = 12


def choose_form(
    prepared: Prepared, batch: int, data: Dataset | None, progress: Progress = silent
) -> tuple[str, dict[str, float]]:
    """The form to write, and the milliseconds of each that was measured on ``data``'s first batch to choose it.

    QDQ is written in standard operators, which every runtime reads; the other replaces it only where its whole 95 % interval is
    faster.
    """
    scheme = prepared.scheme
    if not scheme.static or data is None:
        return DYNAMIC, {}
    if scheme.form != "auto":
        return scheme.form, {}
    progress("measuring both static forms")
    with tempfile.TemporaryDirectory() as folder:
        runners = {}
        for form in (QDQ, OPERATOR):
            path = Path(folder) / f"{form}.onnx"
            onnx_file.save(write(prepared, form=form), path)
            runners[form] = open_runner(path)
        timings = benchmark.measure(runners, [next(data.batches(batch))], rounds=ROUNDS)
    faster = benchmark.ratio(timings[QDQ], timings[OPERATOR]).low > 1
    return OPERATOR if faster else QDQ, {form: timing.p50 for form, timing in timings.items()}

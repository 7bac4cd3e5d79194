"""What activations look like on real inputs: run the float model, watch the inputs of its linear layers, keep summaries only.

Memory does not grow with the number of samples: of each watched value stay its range by channel, the ranges of at most
``BATCHES`` batches, and, where they are asked for, Hessians [K, K] or a histogram.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxfuse.errors import ModelError
from onnxfuse.io import onnx_file
from onnxfuse.io.atomic import scratch
from onnxfuse.io.progress import Progress, silent
from onnxfuse.rewrite import Op
from onnxfuse.runtime import Feeds, Outputs
from onnxfuse.runtime.sessions import open_session, run

BATCHES = 64
"""Batches whose ranges are kept one by one: what a batch's own scale would have been."""

ROWS = 2048
"""Rows multiplied at a time: a product is copied across its diagonal and added up, which of few rows costs more than they do
(K = 3072: 96 us a row at 1024, 58 at 2048; the more, the more memory)."""

BINS = 2048

HESSIAN_BYTES = 1 << 30
"""Hessians held at a time; a model with more of them is run again for the rest."""

Batches = Callable[[], Iterable[Feeds]]
"""Gives the calibration batches, from the start, each time it is called."""


@dataclass(frozen=True)
class Activations:
    """A value [..., K] over all calibration samples.

    Args:
        low, high: by channel [K].
        batch_low, batch_high: the same of single batches [at most BATCHES, K].
        square: the mean of x_j**2 [K].
        hessian: the mean of x_i * x_j [K, K], or None: of a linear layer's squared error the Hessian, up to a factor.
    """

    low: np.ndarray
    high: np.ndarray
    batch_low: np.ndarray
    batch_high: np.ndarray
    square: np.ndarray
    hessian: np.ndarray | None

    @property
    def largest(self) -> np.ndarray:
        """The largest absolute value by channel [K]."""
        return np.asarray(np.maximum(-self.low, self.high).clip(min=0))

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value of all; zero lies between them."""
        return min(0.0, float(self.low.min())), max(0.0, float(self.high.max()))

    def divided(self, scale: np.ndarray) -> Activations:
        """The same of x / scale, scale [K] > 0."""
        hessian = None if self.hessian is None else self.hessian / scale[:, None] / scale
        return Activations(
            self.low / scale, self.high / scale, self.batch_low / scale, self.batch_high / scale, self.square / scale**2, hessian
        )


class _Watched:
    """The running summary of one value."""

    def __init__(self, hessian: bool) -> None:
        self.waiting: list[np.ndarray] = []
        self.lows: list[np.ndarray] = []
        self.highs: list[np.ndarray] = []
        self.low: np.ndarray | None = None
        self.high: np.ndarray | None = None
        self.total: np.ndarray | None = None  # of products x_i * x_j, or of squares alone
        self.wanted, self.count = hessian, 0

    def add(self, rows: np.ndarray) -> None:
        low, high = rows.min(axis=0), rows.max(axis=0)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        self.waiting.append(rows)
        if sum(map(len, self.waiting)) >= ROWS:
            self.multiply()
        if len(self.lows) < BATCHES:
            self.lows.append(low)
            self.highs.append(high)
        self.count += len(rows)

    def multiply(self) -> None:
        """Take the waiting rows into the total."""
        rows = np.concatenate(self.waiting)
        total = rows.T @ rows if self.wanted else np.einsum("nk,nk->k", rows, rows)
        self.total = total if self.total is None else np.add(self.total, total, out=self.total)
        self.waiting = []

    def summary(self) -> Activations:
        if self.waiting:
            self.multiply()
        assert self.low is not None and self.high is not None and self.total is not None
        self.total /= self.count
        square = np.diag(self.total).copy() if self.wanted else self.total
        return Activations(
            self.low, self.high, np.stack(self.lows), np.stack(self.highs), square, self.total if self.wanted else None
        )


def observe(
    model: ir.Model,
    widths: Mapping[str, int],
    batches: Batches,
    *,
    hessian: bool,
    progress: Progress = silent,
    count: int = 0,
    answers: list[Outputs] | None = None,
) -> dict[str, Activations]:
    """Run ``model`` over the calibration batches and summarize the values named in ``widths``, which holds their K.

    Args:
        count: about how many batches there are, for ``progress``; 0 where that is not known.
        answers: receives what the model gives, batch by batch.

    Raises:
        ModelError: an activation is not finite, or the model cannot run on the data.
    """
    found: dict[str, Activations] = {}
    parts, done = list(_parts(widths, hessian)), 0
    for part in parts:
        watched = {name: _Watched(hessian) for name in part}
        for rows, outputs in _watch(model, {name: widths[name] for name in part}, batches):
            if answers is not None and part is parts[0]:
                answers.append(outputs)
            share = min(done / (count * len(parts)), 1.0) if count else None
            progress("calibrating", share, f"batch {done + 1}")
            done += 1
            for name, array in rows.items():
                watched[name].add(array)
        found |= {name: entry.summary() for name, entry in watched.items()}
    for name, activations in found.items():
        if not (np.isfinite(activations.low).all() and np.isfinite(activations.high).all()):
            raise ModelError(f"activation {name} is not finite on the calibration data; the checkpoint or the data is broken")
    return found


def histograms(
    model: ir.Model, widths: Mapping[str, int], ranges: Mapping[str, tuple[float, float]], batches: Batches
) -> dict[str, np.ndarray]:
    """Counts in BINS equal bins over each value's range, of the values named in ``widths``."""
    counts = {name: np.zeros(BINS, np.int64) for name in ranges}
    for rows, _ in _watch(model, widths, batches):
        for name, array in rows.items():
            counts[name] += np.histogram(array, BINS, ranges[name])[0]
    return counts


def _watch(model: ir.Model, widths: Mapping[str, int], batches: Batches) -> Iterator[tuple[dict[str, np.ndarray], Outputs]]:
    """The values named in ``widths`` on every batch, each as rows [rows, K]; and what the model gives."""
    watching = model.clone()
    given = [value.name or "" for value in watching.graph.outputs]
    values = {value.name: value for node in watching.graph for value in node.outputs} | {v.name: v for v in watching.graph.inputs}
    shown = {}
    for name, width in widths.items():
        op = Op(watching.graph, name)
        rows = op.Reshape(values[name], op.constant([-1, width], "rows"))
        for constant in op.initializers:
            watching.graph.register_initializer(constant)
        watching.graph.extend(op.nodes)
        rows.type, rows.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([None, width])
        watching.graph.outputs.append(rows)
        shown[name] = rows.name or ""
    with scratch() as folder:
        path = folder / "watching.onnx"
        onnx_file.save(watching, path)
        session = open_session(path)
        for feeds in batches():
            outputs = run(session, feeds)
            yield {name: outputs[rows] for name, rows in shown.items()}, {name: outputs[name] for name in given}


def _parts(widths: Mapping[str, int], hessian: bool) -> Iterator[list[str]]:
    """The names in groups whose Hessians fit into HESSIAN_BYTES."""
    part: list[str] = []
    held = 0
    for name, width in widths.items():
        size = 4 * width**2 if hessian else 0
        if part and held + size > HESSIAN_BYTES:
            yield part
            part, held = [], 0
        part.append(name)
        held += size
    if part:
        yield part

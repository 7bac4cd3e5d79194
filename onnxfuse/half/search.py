"""The fewest nodes that must stay float32 for a float16 model to pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from onnxfuse.half.peaks import overflowing
from onnxfuse.io.progress import Progress, silent
from onnxfuse.verify.parity import Parity


@dataclass(frozen=True)
class Kept:
    """Nodes that stay float32, by their keys, the largest numbers first; and how the model with these compares."""

    keys: tuple[str, ...]
    parity: Parity


def fewest(peaks: Mapping[str, float], judge: Callable[[Sequence[str]], Parity], progress: Progress = silent) -> Kept:
    """Those whose numbers overflow, and beside them as few others as the model needs, by how large their numbers get.

    Counts are doubled until the model passes; then the smallest is found by bisection.

    Args:
        peaks: of each node.
        judge: how the model compares whose nodes of these keys stay float32.
    """
    base = overflowing(dict(peaks))
    others = sorted((key for key in peaks if key not in base), key=lambda key: -peaks[key])
    judged = {0: judge(base)}

    def passes(count: int) -> bool:
        if count not in judged:
            progress("finding how few nodes must stay float32", step=f"{count} of {len(others)}")
            judged[count] = judge([*base, *others[:count]])
        return judged[count].passed

    fails, enough = -1, 0
    while not passes(enough) and enough < len(others):
        fails, enough = enough, min(max(1, 2 * enough), len(others))
    while passes(enough) and enough - fails > 1:
        middle = (fails + enough) // 2
        fails, enough = (fails, middle) if passes(middle) else (middle, enough)
    return Kept((*base, *others[:enough]), judged[enough])

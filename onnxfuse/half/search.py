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

    Counts are doubled until the model passes; the smallest is found by bisection. Of these, pieces that it passes without are let
    go, halves first, single nodes last: what is lost below float16's smallest number does not go by how large numbers get.

    Args:
        peaks: of each node.
        judge: how the model compares whose nodes of these keys stay float32.
    """
    base = overflowing(dict(peaks))
    others = sorted((key for key in peaks if key not in base), key=lambda key: -peaks[key])
    judged: dict[tuple[str, ...], Parity] = {}

    def passes(keys: Sequence[str]) -> bool:
        if tuple(keys) not in judged:
            if judged:
                progress("finding how few nodes must stay float32", step=f"{len(keys)} of {len(others)}")
            judged[tuple(keys)] = judge([*base, *keys])
        return judged[tuple(keys)].passed

    fails, enough = -1, 0
    while not passes(others[:enough]) and enough < len(others):
        fails, enough = enough, min(max(1, 2 * enough), len(others))
    while passes(others[:enough]) and enough - fails > 1:
        middle = (fails + enough) // 2
        fails, enough = (fails, middle) if passes(others[:middle]) else (middle, enough)
    needed = _needed(others[:enough], passes) if passes(others[:enough]) else others
    return Kept((*base, *needed), judged[tuple(needed)])


def _needed(keys: Sequence[str], passes: Callable[[Sequence[str]], bool]) -> list[str]:
    """Those without any one of which the model fails."""
    left, size = list(keys), len(keys)
    while size > 1:
        size, at = (size + 1) // 2, 0
        while at < len(left):
            fewer = left[:at] + left[at + size :]
            if passes(fewer):
                left = fewer
            else:
                at += size
    return left

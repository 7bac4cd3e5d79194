"""The inputs that models are compared on: batches, lengths, and every kind of mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from onnxfuse.runtime import Feeds
from onnxfuse.verify.profile import BATCH, LENGTH, SHORT, Profile

TRIED = 1024
"""The longest sequence in the grid: the scores of attention grow with its square."""


@dataclass(frozen=True)
class Case:
    """One point of the parity grid.

    ``twins``: of a case with a row that has no token, two feeds without padding that differ in that row; the outputs that
    differ between them are the row's, and must be finite but not equal.

    ``sides``: of a case padded on the left, three feeds without padding: the same tokens, others where tokens are real, others
    where padding is. Outputs that only the last reach (a causal model's) have no key to attend to; they too must only be finite.
    """

    name: str
    feeds: Feeds
    twins: tuple[Feeds, Feeds] | None = None
    sides: tuple[Feeds, Feeds, Feeds] | None = None


def grid(profile: Profile) -> Iterator[Case]:
    """Batch 1 and 3; length 1, short and longest; every kind of mask, and a row without a token. Raises ModelError."""
    rows, columns = profile.only(BATCH), profile.only(LENGTH)
    if not profile.sequences:
        for batch in (1, 3) if rows is None else (rows,):
            yield Case(f"batch {batch}", profile.feeds(batch, 1, seed=batch))
        return
    longest = min(profile.longest, TRIED)
    short = min(SHORT, longest)
    points = [(1, 1, "none"), (1, short, "none"), (3, short, "none"), (1, longest, "none")]
    if profile.masked:
        points += [
            (1, short, "right"),
            (3, short, "right"),
            (3, short, "left"),
            (3, short, "holes"),
            (3, short, "empty row"),
            (3, longest, "right"),
            (1, short, "left"),
            (1, short, "holes"),
        ]
    points = list(dict.fromkeys((rows or batch, columns or length, mask) for batch, length, mask in points))
    for seed, (batch, length, mask) in enumerate(points):
        yield Case(
            f"batch {batch}, length {length}, mask {mask}",
            profile.feeds(batch, length, mask=mask, seed=seed),
            profile.twins(batch, length, seed) if mask == "empty row" else None,
            profile.sides(batch, length, mask, seed) if mask == "left" else None,
        )

"""How far outputs may differ: one table, each row with its reason. Nothing has a default tolerance."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """How far outputs may differ, and why. None does not ask.

    Args:
        relative: largest difference of a number, as a part of the reference's largest absolute value over the grid.
        element: the same as a part of the number itself, or of the output's typical number where that is larger.
        cosine: lowest cosine between an output and its reference over the whole grid, centred on the reference's mean; of all
            numbers, and of those that are ordinary beside a few huge ones.
        equal: lowest share of whole numbers, truth values and texts that are equal.
    """

    relative: float | None
    element: float | None
    cosine: float | None
    equal: float
    reason: str


TOLERANCES = {
    "exact": Tolerance(0.0, None, None, 1.0, "the same operations in the same order"),
    "reassociate": Tolerance(
        1e-5,
        1e-3,
        None,
        1.0,
        "float32 sums in another order: 12 to 24 layers of rounding at 6e-8 each; measured 1e-6 to 3e-6 of "
        "the largest number, and up to 5e-5 of a typical one where some channels are 70 times as large",
    ),
    "half": Tolerance(
        1e-2,
        0.25,
        None,
        1.0,
        "weights rounded to float16, 5e-4 of each: 12 layers of them; measured 4e-4 to 2.7e-3 of the largest "
        "number, and up to 6e-2 of a typical one where some channels are 70 times as large",
    ),
    "bfloat16": Tolerance(
        8e-2,
        0.5,
        None,
        1.0,
        "sums in another order, each number rounded to bfloat16, 4e-3 of it: over 12 layers, measured 4e-3 to "
        "1.9e-2 of the largest number, and up to 1.1e-1 of a typical one",
    ),
    "int8": Tolerance(
        None,
        None,
        0.98,
        0.9,
        "8 bits for weights and activations; per-tensor activation scales cost about 0.007 of cosine on trained "
        "sentence encoders, and a dropped bias or swapped scale costs more than 0.05; of classes that are near "
        "each other some change",
    ),
    "finite": Tolerance(
        None, None, None, 0.0, "int8 that is judged on real inputs, or by the user's thresholds: on these it must only be finite"
    ),
}

OF_PRECISION = {"fp32": "reassociate", "fp16": "half", "bf16": "int8", "int8": "int8"}
"""The row that a model of each precision is held to when it is compared with float32."""

"""What ``bench.py`` measures: which models on which batches, beside what, and what is promised of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxfuse.exporters.sentence import SENTENCE
from onnxfuse.pipeline import baselines, compare
from onnxfuse.runtime import Feeds
from onnxfuse.verify.profile import Profile

BERT, DISTILBERT, VIT = "bert-base-uncased", "distilbert-base-uncased", "google/vit-base-patch16-224"
MINILM = "all-MiniLM-L6-v2"
TASKS = {BERT: "text-classification", DISTILBERT: "text-classification", VIT: "image-classification", MINILM: None}

TUNED, TUNED_FP32, TUNED_BF16 = "onnxfuse, tuned", "onnxfuse, tuned, fp32", "onnxfuse, tuned, bf16"

NATIVE, NATIVE_FP32, NATIVE_BF16 = "onnxfuse, native, int8", "onnxfuse, native, fp32", "onnxfuse, native, bf16"
"""The fastest of our own kernels' forms of a precision."""

TS = ", TorchScript"
"""What stands behind a baseline's name where it starts from the TorchScript export."""

FIRST = "torch"
"""What everything is compared with."""


@dataclass(frozen=True)
class Promise:
    """``ours`` is at least ``wanted`` times as fast as the fastest peer of the precision ``kind``, at no lower cosine than that
    peer's."""

    ours: str
    kind: str
    wanted: float


@dataclass(frozen=True)
class Workload:
    """A batch by the number of real tokens in each row, how often it is run, and what is promised of it."""

    model: str
    name: str
    lengths: tuple[int, ...]
    rounds: int
    promises: tuple[Promise, ...]

    def __str__(self) -> str:
        return f"{self.model}, {self.name}"

    def inputs(self, profile: Profile) -> list[Feeds]:
        """What is compared on, and timed on the first of: random, rows padded at their end to the longest."""
        batch, longest = len(self.lengths), max(self.lengths)
        mask = (np.arange(longest) < np.array(self.lengths)[:, None]).astype(np.int64)
        return [
            profile.feeds(batch, longest, seed=seed) | ({"attention_mask": mask} if profile.masked else {})
            for seed in range(compare.COMPARED)
        ]


MIXED = (128, 80, 64, 48, 37, 25, 16, 12)

WORKLOADS = (
    Workload(BERT, "1 row of 16 tokens", (16,), 100, (Promise(TUNED, "int8", 1.02), Promise(NATIVE, "int8", 1.3))),
    Workload(
        BERT,
        "1 row of 128 tokens",
        (128,),
        24,
        (
            Promise(TUNED, "int8", 1.02),
            Promise(TUNED_FP32, "fp32", 1.05),
            Promise(TUNED_BF16, "bf16", 1.02),
            Promise(NATIVE, "int8", 1.15),
            Promise(NATIVE_FP32, "fp32", 1.1),
            Promise(NATIVE_BF16, "bf16", 1.2),
        ),
    ),
    Workload(BERT, "1 row of 512 tokens", (512,), 16, (Promise(TUNED, "int8", 1.05), Promise(NATIVE, "int8", 1.2))),
    Workload(
        BERT,
        "8 rows up to 128 tokens, 40 % of them real",
        MIXED,
        16,
        (
            Promise(TUNED, "int8", 2.2),
            Promise(TUNED_FP32, "fp32", 2.5),
            Promise(TUNED_BF16, "bf16", 2.0),
            Promise(NATIVE, "int8", 2.8),
        ),
    ),
    Workload(DISTILBERT, "1 row of 128 tokens", (128,), 48, (Promise(TUNED, "int8", 1.05), Promise(NATIVE, "int8", 1.15))),
    Workload(VIT, "1 image", (1,), 16, (Promise(TUNED, "int8", 1.10), Promise(NATIVE, "int8", 1.3))),
    Workload(MINILM, f"8 rows up to 128 tokens, 40 % of them real, {SENTENCE}", MIXED, 24, (Promise(TUNED, "int8", 2.0),)),
)


def peers() -> tuple[str, ...]:
    """Every baseline, those that start from an export also from the TorchScript one."""
    return tuple(
        name
        for each in baselines.known().values()
        for name in (each.name, *([f"{each.name}{TS}"] if each.exported else []))
        if name != FIRST
    )

"""What a model's masks mean, found by running it."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from onnxfuse.errors import ModelError
from onnxfuse.runtime import Outputs, Runner
from onnxfuse.verify.arrays import differs
from onnxfuse.verify.masks import ADDED, MEANINGS
from onnxfuse.verify.profile import LENGTH, SHORT, Profile

SLIGHT = 1e-4
"""A movement that does not count, as a part of an output's largest number: what a filler of -10 lets through."""

CLEAR = 2
"""How many times as far outputs must move for another meaning than the usual one."""


def understood(profile: Profile, run: Runner) -> Profile:
    """The profile with every mask meant as the model means it: 1 may let a token in or shut it out, or be added to scores.

    Found by changing a token: the last of those let in, it moves outputs that it does not reach as the first of those shut out.
    Where nothing tells, 1 lets in.
    """
    masks = [value for value in profile.inputs if value.role == "mask"]
    choices = itertools.product(*(MEANINGS if value.dtype.kind in "iub" else (*MEANINGS, ADDED) for value in masks))
    meant = [_meaning(profile, dict(zip((value.name for value in masks), choice, strict=True))) for choice in choices]
    if len(meant) == 1:
        return profile
    found = [_let_in(candidate, run) for candidate in meant]
    return next(candidate for candidate, moved in zip(meant, found, strict=True) if moved >= max(found) / CLEAR)


def _meaning(profile: Profile, meanings: dict[str, tuple[float, float]]) -> Profile:
    inputs = (replace(value, meaning=meanings.get(value.name, value.meaning)) for value in profile.inputs)
    return replace(profile, inputs=tuple(inputs))


def _let_in(profile: Profile, run: Runner) -> float:
    """How far the last token that is let in moves outputs that it does not reach as the first that is shut out.

    So a mask that the model counts (lengths, as ONNX Runtime's optimizer writes them) tells as well as one that it reads.
    """
    rows, columns = profile.sized(1, SHORT)
    token = columns // 2
    ends = (np.tile(np.arange(columns) < end, (rows, 1)) for end in (token + 1, token))
    try:
        (before, after), (out_before, out_after) = (_changed(profile, run, keep, token) for keep in ends)
    except ModelError:
        return 0.0
    moved = 0.0
    for name in before:
        if not isinstance(before[name], np.ndarray):  # a sequence, which cannot be judged
            continue
        if len({outputs[name].shape for outputs in (before, after, out_before, out_after)}) == 1:
            moved += float((_moved(before[name], after[name]) * (_moved(out_before[name], out_after[name]) <= SLIGHT)).sum())
    return moved


def _changed(profile: Profile, run: Runner, keep: np.ndarray, token: int) -> tuple[Outputs, Outputs]:
    """The outputs with these tokens let in, before and after a token changes."""
    masks = {value.name: value.content(keep, np.random.default_rng(0)) for value in profile.inputs if value.role == "mask"}
    feeds = profile.filled(np.ones_like(keep), np.random.default_rng(0)) | masks
    return run(feeds), run(profile.changed(feeds, LENGTH, slice(token, token + 1)))


def _moved(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How far each number of an output moved, as a part of its largest; of texts, whether it did."""
    if before.dtype.kind in "OSU":
        return differs(before, after).astype(np.float64)
    a, b = (np.nan_to_num(array.astype(np.float64), posinf=0.0, neginf=0.0) for array in (before, after))
    return np.asarray(np.abs(a - b) / (np.abs(a).max(initial=0.0) or 1.0))

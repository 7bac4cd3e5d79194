"""Wrong calls of a model that ``onnxfuse.load`` opened: the export, the optimized and the int8 model must say the same."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import onnxfuse
from attacks.child import DIFFERS, Case, Command, Room
from attacks.escapes import furnish
from attacks.sources import SIZES, Sources

IDS = np.full((2, 8), 6)
ONE, NONE = np.ones_like(IDS), np.zeros_like(IDS)
FEEDS: dict[str, Any] = {"input_ids": IDS, "attention_mask": ONE, "token_type_ids": NONE}
NAMES = ("model.onnx", "model_optimized.onnx", "model_quantized.onnx")


def _with(**changed: Any) -> Callable[[Any], Any]:
    return lambda model: model(**FEEDS | changed)


def _all(value: Any) -> Callable[[Any], Any]:
    return lambda model: model(**dict.fromkeys(FEEDS, value))


class Odd:
    """No array, and raises where numpy asks."""

    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise RuntimeError("no\narray")


KINDS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda model: model(),
    "none": lambda model: model(None, None, None),
    "too-many": lambda model: model(IDS, ONE, NONE, NONE),
    "twice": lambda model: model(IDS, input_ids=IDS, attention_mask=ONE, token_type_ids=NONE),
    "unknown": _with(evil=IDS),
    "missing": lambda model: model(input_ids=IDS),
    "run-list": lambda model: model.run([IDS]),
    "run-none": lambda model: model.run(None),
    "run-keys": lambda model: model.run({1: IDS}),
    "run-nul": lambda model: model.run(FEEDS | {"a\0b": IDS}),
    "ids-none": _with(input_ids=None),
    "ids-scalar": _with(input_ids=7),
    "ids-text": _with(input_ids="the"),
    "ids-texts": _with(input_ids=[["the"] * 8] * 2),
    "ids-bytes": _with(input_ids=b"the"),
    "ids-flat": _with(input_ids=IDS[0]),
    "ids-deep": _with(input_ids=IDS[:, :, None]),
    "ids-float": _with(input_ids=IDS / 7),
    "ids-nan": _with(input_ids=IDS * np.nan),
    "ids-bool": _with(input_ids=IDS > 0),
    "ids-complex": _with(input_ids=IDS * 1j),
    "ids-ragged": _with(input_ids=[[1, 2], [3]]),
    "ids-dict": _with(input_ids={"a": 1}),
    "ids-object": _with(input_ids=np.full((2, 8), print, object)),
    "ids-odd": _with(input_ids=Odd()),
    "ids-function": _with(input_ids=print),
    "ids-large": _with(input_ids=np.full((2, 8), SIZES["vocab_size"])),
    "ids-huge": _with(input_ids=np.full((2, 8), 2**62)),
    "ids-unsigned": _with(input_ids=np.full((2, 8), 2**64 - 1, np.uint64)),
    "ids-whole": _with(input_ids=[[2**70] * 8] * 2),
    "ids-negative": _with(input_ids=np.full((2, 8), -1)),
    "ids-low": _with(input_ids=np.full((2, 8), -SIZES["vocab_size"] - 1)),
    "types-large": _with(token_type_ids=ONE * 2),
    "types-negative": _with(token_type_ids=ONE * -9),
    "mask-short": _with(attention_mask=ONE[:, :3]),
    "mask-long": _with(attention_mask=np.ones((2, 9), np.int64)),
    "mask-rows": _with(attention_mask=ONE[:1]),
    "mask-flat": _with(attention_mask=ONE[0]),
    "mask-deep": _with(attention_mask=np.ones((2, 1, 1, 8), np.int64)),
    "mask-float": _with(attention_mask=ONE * 0.5),
    "types-rows": _with(token_type_ids=NONE[:1]),
    "no-rows": _all(np.zeros((0, 8), np.int64)),
    "no-tokens": _all(np.zeros((2, 0), np.int64)),
    "too-long": _all(np.ones((1, SIZES["max_position_embeddings"] + 1), np.int64)),
    "far-too-long": _all(np.ones((1, 100_000), np.int64)),
    "structured": _with(input_ids=np.zeros((2, 8), [("a", "i8")])),
    "date": _with(input_ids=np.zeros((2, 8), "M8[s]")),
}


def cases(sources: Sources, _: int) -> list[Case]:
    """Every call, of all three models."""

    def builder(call: Callable[[Any], Any]) -> Callable[[Room], Command]:
        def build(room: Room) -> Command:
            furnish(room, sources)
            return lambda: together(call)

        return build

    return [Case("calls", name, "load", builder(call)) for name, call in KINDS.items()]


def together(call: Callable[[Any], Any]) -> None:
    """Ask each model; end as the first did, or with ``DIFFERS`` where another said something else. Raises SystemExit."""
    said: list[tuple[int, str]] = []
    for name in NAMES:
        try:
            call(onnxfuse.load(name))
            said.append((0, ""))
        except onnxfuse.OnnxfuseError as error:
            said.append((error.exit_code, re.sub(r"model(_\w+)?\.onnx", "MODEL", f"onnxfuse: {error}\n")))
    if len(set(said)) > 1:
        sys.stderr.write(
            "".join(f"{name}: {code} {text or 'answered'} | " for name, (code, text) in zip(NAMES, said, strict=True))
        )
        raise SystemExit(DIFFERS)
    sys.stderr.write(said[0][1])
    raise SystemExit(said[0][0])

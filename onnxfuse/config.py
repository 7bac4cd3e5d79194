"""What each verb is asked to do, as data, frozen before it starts."""

from __future__ import annotations

import typing
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, ClassVar

from onnxfuse.errors import UsageError

BATCH_SIZE, NUM_CHOICES, SEQUENCE_LENGTH = "batch_size", "num_choices", "sequence_length"
"""Names of the dynamic dimensions, as optimum has them."""

RANGES = ("minmax", "entropy", "percentile")
FORMATS = ("auto", "qoperator", "qdq", "qdq-source")
ROUNDINGS = ("gptq", "nearest")
ATTENTIONS = ("fp32", "bf16")

WORDS: dict[type, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    NoneType: "None",
    Path: "a path",
    tuple: "a tuple of texts",
    frozenset: "a frozenset of texts",
}
"""What values of a type are called in messages."""

Bounds = Mapping[str, tuple[float, float]]
"""The lowest and highest value of numbers, by field."""

MOST = float("inf")

BATCH, LENGTH, ROUNDS = 1 << 12, 1 << 17, 1_000_000
"""The most rows in a batch, tokens in a row, and rounds of a measurement: far beyond what is useful, and such that the number of
elements of what models make of them is still a number of 64 bits."""


class Config:
    """A frozen dataclass that holds what its fields say: values of their types, within ``within``."""

    within: ClassVar[Bounds] = {}

    def __post_init__(self) -> None:
        """Raises UsageError for a value of another type, or out of range."""
        for name, kinds in _kinds(self.__class__).items():
            value = getattr(self, name)
            if not any(_holds(kind, value) for kind in kinds):
                wanted = " or ".join(WORDS.get(kind, kind.__name__) for kind in kinds)
                raise UsageError(f"{name} is {value!r}, wanted {wanted}")
        for name, (low, high) in self.within.items():
            value = getattr(self, name)
            if isinstance(value, int | float) and not low <= value <= high:
                raise UsageError(f"{name} is {value!r}, wanted {_range(low, high)}")


def _kinds(config: type) -> dict[str, tuple[type, ...]]:
    """The types that each field of a config takes."""
    hints = typing.get_type_hints(config)
    return {each.name: _parts(hints[each.name]) for each in fields(config)}


def _parts(hint: Any) -> tuple[type, ...]:
    if isinstance(hint, UnionType):
        return tuple(part for each in typing.get_args(hint) for part in _parts(each))
    return (typing.get_origin(hint) or hint,)


def _holds(kind: type, value: Any) -> bool:
    """Whether a value is of a kind: whole numbers are numbers, truth values are none, and collections hold texts."""
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind in (tuple, frozenset):
        return isinstance(value, kind) and all(isinstance(each, str) for each in value)
    return isinstance(value, int | float if kind is float else kind)


def _range(low: float, high: float) -> str:
    return f"{low} or more" if high == MOST else f"{low} to {high}"


def names(given: Any, option: str) -> tuple[str, ...]:
    """An option that is a list of names. Raises UsageError for anything else, one text included."""
    if not isinstance(given, Collection) or isinstance(given, str) or not all(isinstance(name, str) for name in given):
        seen, like = (f"the text {given!r}", given.split(",")) if isinstance(given, str) else (f"{given!r:.80}", ["NAME"])
        raise UsageError(f"{option} is {seen}, wanted a list of names: {[name.strip() for name in like]}")
    return tuple(given)


@dataclass(frozen=True)
class Scheme(Config):
    """How to quantize.

    Args:
        static: activations get scales from calibration; else each run measures its own. None is as the target chose that the
            model was optimized for: dynamic where ``tune`` did not find a static one faster.
        embeddings: tables in int8 too, a scale for each row.
        reduce_range: weights that no machine clips (see ``weights``); None measures whether this one would.
        smooth: "auto", "off", or SmoothQuant's alpha from 0 to 1; without calibration there is nothing to smooth with.
        rounding: of weights, one of ROUNDINGS; without calibration they are rounded to nearest.
        ranges: how static scales are read off calibration, one of RANGES.
        format: of a static model, one of FORMATS; "auto" measures both.
        attention: what its two products are computed in, one of ATTENTIONS; bf16 is a choice of target ``native``.

    Raises:
        UsageError: something else.
    """

    static: bool | None = None
    embeddings: bool = True
    reduce_range: bool | None = None
    smooth: str | float = "auto"
    rounding: str = "gptq"
    ranges: str = "minmax"
    format: str = "auto"
    attention: str = "fp32"

    def __post_init__(self) -> None:
        super().__post_init__()
        listed = ("rounding", ROUNDINGS), ("ranges", RANGES), ("format", FORMATS), ("attention", ATTENTIONS)
        for name, known in listed:
            if (value := getattr(self, name)) not in known:
                raise UsageError(f"no {name} named {value!r}; choose one of {', '.join(known)}")
        if not self.static and (self.format != "auto" or self.ranges != "minmax"):
            name, value = ("format", self.format) if self.format != "auto" else ("ranges", self.ranges)
            raise UsageError(f"--{name} {value} is a choice of static int8; add --static, or leave it out")
        if self.smooth not in ("auto", "off") if isinstance(self.smooth, str) else not 0 <= self.smooth <= 1:
            raise UsageError(f"--smooth {self.smooth}: wanted auto, off, or a number from 0 to 1")


@dataclass(frozen=True)
class Thresholds(Config):
    """What int8 must keep. ``max_drop``: accuracy it may lose, as a share of all samples; ``min_cosine`` and ``min_agreement``:
    see ``Quality``. None asks nothing."""

    within: ClassVar[Bounds] = {"max_drop": (0, 1), "min_cosine": (-1, 1), "min_agreement": (0, 1)}

    max_drop: float | None = None
    min_cosine: float | None = None
    min_agreement: float | None = None

    def __bool__(self) -> bool:
        return any(value is not None for value in asdict(self).values())


@dataclass(frozen=True)
class ExportConfig(Config):
    """What to export and how. ``out`` is the folder that receives model.onnx; ``overwrite``: what others made there may go.

    ``framework``: ``pt`` or ``tf``; None takes what the source's files show. ``exporter``: None takes the framework's first.
    ``format``: ``onnx`` or ``tflite``. ``precision``: of LiteRT models, a key of ``exporters.tflite.FILES``.
    ``outputs``: what the graph shows, by name; the task's own when empty.
    """

    source: str
    out: Path
    task: str | None = None
    model_type: str | None = None
    exporter: str | None = None
    opset: int | None = None
    random_weights: bool = False
    seed: int = 0
    framework: str | None = None
    format: str = "onnx"
    precision: str = "fp32"
    overwrite: bool = False
    outputs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.source:
            raise UsageError("the source is an empty text, wanted a hub id, or a checkpoint's file or folder")


@dataclass(frozen=True)
class OptimizeConfig(Config):
    """Which file to optimize into which, for which target, with which rules.

    ``verify``: ``each`` proves every rewrite before it is made and compares both models afterwards, ``final`` only compares,
    ``off`` does neither. ``dump``: a folder that receives the graph after every rewrite. ``unpad``: True removes padding even
    where outputs then show zeros for it, False never, None where the outputs cannot tell. ``batch``, ``length``: the only sizes
    that the result takes; None leaves them dynamic. ``overwrite``: ``out`` may replace a file that onnxfuse did not make.
    ``precision``: fp32, or fp16 or bf16 (see ``pipeline.halve``); None takes the target's. ``half_io``: of fp16 also what the
    model takes and gives.
    """

    within: ClassVar[Bounds] = {"batch": (1, BATCH), "length": (1, LENGTH)}

    source: Path
    out: Path
    target: str = "cpu"
    model_type: str | None = None
    only: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    require: tuple[str, ...] = ()
    verify: str = "each"
    dump: Path | None = None
    unpad: bool | None = None
    batch: int | None = None
    length: int | None = None
    overwrite: bool = False
    precision: str | None = None
    half_io: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """The dimensions to fix, by name."""
        return {name: size for name, size in ((BATCH_SIZE, self.batch), (SEQUENCE_LENGTH, self.length)) if size is not None}


@dataclass(frozen=True)
class QuantizeConfig(Config):
    """Which file to quantize into which, and what it must keep.

    ``calibration``: a data set (see ``evaluation.dataset``), "none", or None for sentences from the standard library where a
    tokenizer lies beside the model. ``data``: what ``thresholds`` are measured on; None takes the calibration data. ``batch``:
    rows at a time in both. ``overwrite``: see ``OptimizeConfig``.
    """

    within: ClassVar[Bounds] = {"batch": (1, BATCH)}

    source: Path
    out: Path
    scheme: Scheme = field(default_factory=Scheme)
    calibration: str | None = None
    data: Path | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    batch: int = 8
    overwrite: bool = False


@dataclass(frozen=True)
class PackageConfig(Config):
    """Which model to package into the folder ``out``, in which layout. ``overwrite``: see ``OptimizeConfig``."""

    source: Path
    layout: str
    out: Path
    overwrite: bool = False


THREADS, SECONDS = 1024, 86_400.0
"""More than any machine that this runs on has cores (each takes memory), and the longest run time of a model: a day."""

MEASURED: Bounds = {"batch": (0, BATCH), "length": (0, LENGTH), "threads": (0, THREADS), "rounds": (1, ROUNDS), "real": (0.01, 1)}
"""Of what is measured, and how often."""


@dataclass(frozen=True)
class BenchmarkConfig(Config):
    """Shapes, threads and rounds of a measurement; ``threads`` 0 takes all cores, ``real`` is the share of real tokens.

    ``batch`` and ``length``: 0 takes what the model does: 1, and 128 or what it has positions for. ``seconds``: for each model,
    instead of rounds; 0 leaves it at these.
    """

    within: ClassVar[Bounds] = {**MEASURED, "seconds": (0, SECONDS)}

    batch: int = 0
    length: int = 0
    threads: int = 0
    rounds: int = 20
    real: float = 1.0
    seed: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class TuneConfig(Config):
    """Which model to tune for which shapes, and the target file to write.

    ``threads``: 0 tunes them too. ``target``: where the choices start. ``precisions`` and ``runtimes``: what may be chosen.
    ``overwrite``: see ``OptimizeConfig``.
    """

    within: ClassVar[Bounds] = MEASURED

    source: Path
    out: Path
    batch: int = 0
    length: int = 0
    real: float = 1.0
    threads: int = 0
    rounds: int = 20
    target: str = "cpu"
    precisions: tuple[str, ...] = ("fp32",)
    runtimes: tuple[str, ...] = ("ort",)
    model_type: str | None = None
    seed: int = 0
    overwrite: bool = False


def shape_text(plan: BenchmarkConfig | TuneConfig) -> str:
    """What a plan measures on, for people."""
    return f"batch {plan.batch}" + (f", length {plan.length}" if plan.length else "")

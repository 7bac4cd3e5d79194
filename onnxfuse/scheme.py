"""What int8 is asked to be, and what it must keep."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from onnxfuse.errors import UsageError

RANGES = ("minmax", "entropy", "percentile")
FORMS = ("auto", "operator", "qdq")
ROUNDINGS = ("gptq", "nearest")


@dataclass(frozen=True)
class Scheme:
    """How to quantize.

    Args:
        static: activations get scales from calibration; else each run measures its own.
        embeddings: tables in int8 too, a scale for each row.
        clip_safe: weights that no machine clips (see ``weights``); None measures whether this one would.
        smooth: "auto", "off", or SmoothQuant's alpha from 0 to 1; without calibration there is nothing to smooth with.
        rounding: of weights, one of ROUNDINGS; without calibration they are rounded to nearest.
        ranges: how static scales are read off calibration, one of RANGES.
        form: of a static model, one of FORMS; "auto" measures both.

    Raises:
        UsageError: something else.
    """

    static: bool = False
    embeddings: bool = True
    clip_safe: bool | None = None
    smooth: str | float = "auto"
    rounding: str = "gptq"
    ranges: str = "minmax"
    form: str = "auto"

    def __post_init__(self) -> None:
        for name, known in (("rounding", ROUNDINGS), ("ranges", RANGES), ("form", FORMS)):
            if (value := getattr(self, name)) not in known:
                raise UsageError(f"no {name} named {value!r}; choose one of {', '.join(known)}")
        if self.smooth not in ("auto", "off") and not (isinstance(self.smooth, float) and 0 <= self.smooth <= 1):
            raise UsageError(f"--smooth {self.smooth}: wanted auto, off, or a number from 0 to 1")


@dataclass(frozen=True)
class Bars:
    """What int8 must keep. ``max_drop``: accuracy it may lose, as a share of all samples; ``min_cosine`` and ``min_agreement``:
    see ``Quality``. None asks nothing."""

    max_drop: float | None = None
    min_cosine: float | None = None
    min_agreement: float | None = None

    def __bool__(self) -> bool:
        return any(bar is not None for bar in asdict(self).values())

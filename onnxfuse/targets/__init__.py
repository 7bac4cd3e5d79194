"""Targets: what a runtime runs, and the form it runs fastest, as data: one .json file each.

``onnxfuse tune`` measures on a machine and writes such a file; ``--target`` takes a shipped one's name or any file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onnxfuse.errors import UsageError
from onnxfuse.runtime.api import Settings

CHOICES: Mapping[str, tuple[str, ...]] = {
    "attention": ("Attention", "decomposed", "MultiHeadAttention"),
    "qkv": ("merged", "separate"),
    "gelu": ("Gelu", "BiasGelu", "elementwise"),
    "residual": ("Sum", "Add", "SkipLayerNormalization"),
    "linear": ("MatMul", "Gemm"),
    "padding": ("removed", "kept"),
    "precision": ("fp32", "int8"),
}
"""What a target chooses for each thing; ``catalog.lowerings`` has those of each variant."""


@dataclass(frozen=True)
class Target:
    """The operators that an optimized model may use, and what is chosen for each thing.

    Args:
        opset: the standard opset that models are raised to; 0 keeps the exporter's, from 17 to ``highest``.
        why: the measurement behind the choices, in words.
        attention, qkv, gelu, residual, linear, padding, precision: one of ``CHOICES``.
        session: what ``onnxfuse.load`` opens the models with.
        measured: the measurement itself, as ``tune`` writes it; empty when there is none.
    """

    name: str
    opset: int
    why: str
    attention: str
    gelu: str
    residual: str
    highest: int = 23
    qkv: str = "merged"
    linear: str = "MatMul"
    padding: str = "removed"
    precision: str = "fp32"
    session: Settings = field(default_factory=Settings)
    measured: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def variants(self) -> dict[str, str]:
        """The chosen variant of each thing that is lowered (``catalog.lowerings``)."""
        return {"attention": self.attention, "gelu": self.gelu, "residual": self.residual, "linear": self.linear}

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


SHIPPED = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in SHIPPED.glob("*.json")))
"""The targets that onnxfuse brings."""


def find(name: str) -> Target:
    """The shipped target of that name, or the one in that file.

    Raises:
        UsageError: there is neither, or the file does not describe a target.
    """
    if name in NAMES:
        return read(SHIPPED / f"{name}.json")
    if not Path(name).is_file():
        raise UsageError(f"no target named {name!r}; choose one of {', '.join(NAMES)}, or a file that onnxfuse tune wrote")
    return read(Path(name))


def read(path: Path) -> Target:
    """A target from its file. Raises UsageError when it does not describe one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        target = Target(**content | {"session": Settings(**content.get("session", {}))})
    except (ValueError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} does not describe a target ({error}); write one with: onnxfuse tune MODEL") from error
    for thing, known in CHOICES.items():
        if getattr(target, thing) not in known:
            raise UsageError(f"{path}: {thing} is {getattr(target, thing)!r}, wanted one of {', '.join(known)}")
    if type(target.opset) is not int or type(target.highest) is not int:
        raise UsageError(f"{path}: opset is {target.opset!r}, highest {target.highest!r}, wanted numbers")
    return target

"""What onnxfuse knows, found by its being there: fusions and model families."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir as ir

from onnxfuse import plugins
from onnxfuse.architecture import Architecture
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.rewrite import Fusion


def fusions() -> dict[str, Fusion]:
    """Every fusion by its name: those of ``fusions/``, and those that others bring."""
    return plugins.find(Fusion, "onnxfuse.fusions")


def architecture(model_type: str) -> Architecture:
    """The family of that type. Raises ModelError, which names those that are called nearly so."""
    known = families()
    if not isinstance(model_type, str) or model_type not in known:
        near = difflib.get_close_matches(str(model_type).lower(), known, cutoff=0.5)
        beside = f" ({' and '.join(near)} {'are' if len(near) > 1 else 'is'} near)" if near else ""
        raise ModelError(f"model type {model_type!r} is not supported{beside}; onnxfuse knows {', '.join(known)}")
    return known[model_type]


def families() -> dict[str, Architecture]:
    """Every family by its model type: those of ``models/``, and those that others bring."""
    return plugins.find(Architecture, "onnxfuse.models")


def checkpoint(name: str, model_type: str | None = None) -> tuple[Architecture, dict[str, Any]]:
    """The family and config fields of a hub id that needs no download; ``model_type``: which tower. Raises UsageError."""
    known = families().values()
    for family in known:
        if name in family.checkpoints and model_type in (None, family.model_type):
            return family, dict(family.checkpoints[name])
    names = ", ".join(name for family in known for name in family.checkpoints if model_type in (None, family.model_type))
    raise UsageError(f"--random-weights knows no architecture named {name!r}; it knows {names}")


def model_type(model: ir.Model, config: Mapping[str, Any], override: str | None) -> str:
    """The family a model belongs to: as asked, as config.json says, or as its inputs show where it names none that is known.

    Raises:
        ModelError: a family is asked for that onnxfuse does not know, or config.json has no name as model_type.
    """
    named = override or config.get("model_type")
    if named is None or unknown(config, override):
        return shown_by(value.name or "" for value in model.graph.inputs).model_type
    return architecture(named).model_type


def unknown(config: Mapping[str, Any], override: str | None = None) -> str:
    """The model type in config.json that no family has; empty where one has it, there is none, or another is asked for."""
    named = config.get("model_type")
    return named if isinstance(named, str) and named not in families() and override is None else ""


def shown_by(inputs: Iterable[str]) -> Architecture:
    """The family whose ``shown_by`` is among the names of a model's inputs; of several the one that asks for most of them."""
    given = set(inputs)
    shown = [family for family in families().values() if family.shown_by is not None and family.shown_by <= given]
    return max(shown, key=lambda family: len(family.shown_by or ()))

"""The module that is exported: a task's outputs as a tuple in order, with pooling in the graph for sentence embeddings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse.architecture import OUTPUTS, Architecture
from onnxfuse.errors import ExportError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Pooling:
    """How token embeddings become one sentence embedding.

    Args:
        mode: ``mean`` (over tokens that the mask keeps), ``cls`` (the first token) or ``max``.
        normalize: whether the result has length 1.
    """

    mode: str = "mean"
    normalize: bool = False


def read_pooling(files: dict[str, Path], source: str) -> Pooling | None:
    """The pooling that a checkpoint's modules.json asks for; None when it is no sentence encoder. Raises ExportError."""
    if "modules.json" not in files or "1_Pooling/config.json" not in files:
        return None
    modules = json.loads(files["modules.json"].read_text(encoding="utf-8"))
    kinds = [module["type"].rsplit(".", 1)[-1] for module in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise ExportError(f"{source}: modules.json asks for {' -> '.join(kinds)}; onnxfuse exports Transformer -> Pooling, "
                          "with Normalize or without; export it with --task feature-extraction")
    config = json.loads(files["1_Pooling/config.json"].read_text(encoding="utf-8"))
    modes = {"mean": config.get("pooling_mode_mean_tokens"), "cls": config.get("pooling_mode_cls_token"),
             "max": config.get("pooling_mode_max_tokens")}
    chosen = [config["pooling_mode"]] if config.get("pooling_mode") else [mode for mode, wanted in modes.items() if wanted]
    if len(chosen) != 1 or chosen[0] not in modes:
        raise ExportError(f"{source}: pooling {chosen or 'of an unknown kind'} is not supported; onnxfuse knows mean, cls and "
                          "max, one at a time; export it with --task feature-extraction")
    return Pooling(chosen[0], "Normalize" in kinds)


def wrap(model: Any, family: Architecture, task: str, pooling: Pooling | None) -> torch.nn.Module:
    """A module whose forward takes the family's inputs in order and returns the task's outputs as a tuple."""
    import torch

    names, outputs = tuple(family.inputs), OUTPUTS[task]

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            given = dict(zip(names, inputs, strict=True))
            result = self.model(**given)
            if task != "sentence-similarity":
                return tuple(result[name] for name in outputs)
            tokens = result["last_hidden_state"]
            return tokens, pool(tokens, given["attention_mask"], pooling or Pooling())

    return Exported().eval()


def pool(tokens: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One embedding a row: tokens [B,S,D] float, mask [B,S] integer, result [B,D]. A row without tokens gives zeros, or for
    ``max`` the lowest number.

    Source: sentence-transformers' Pooling and Normalize modules (mean divides by at least 1e-9, Normalize by at least 1e-12).
    """
    import torch

    if pooling.mode == "cls":
        pooled = tokens[:, 0]
    else:
        kept = mask.unsqueeze(-1).to(tokens.dtype)
        if pooling.mode == "max":
            pooled = torch.where(kept > 0, tokens, torch.finfo(tokens.dtype).min).max(dim=1).values
        else:
            pooled = (tokens * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1e-9)
    return torch.nn.functional.normalize(pooled, dim=-1) if pooling.normalize else pooled

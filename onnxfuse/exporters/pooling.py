"""The module that is exported: a task's outputs as a tuple in order, with what modules.json asks for in the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxfuse.architecture import MASK, PROMPT, Architecture
from onnxfuse.exporters.sentence import (
    SENTENCE,
    TOKENS,
    Chain,
    Dense,
    Embeds,
    LayerNorm,
    Normalize,
    Pooling,
    Splade,
    Step,
    inputs_of,
)

if TYPE_CHECKING:
    import torch


def wrap(model: Any, family: Architecture, task: str, outputs: tuple[str, ...], chain: Chain = ()) -> torch.nn.Module:
    """A module whose forward takes the family's inputs in order, then the chain's, and returns ``outputs`` as a tuple."""
    import torch

    names = tuple(family.inputs_of(model.config.to_dict(), task))
    beside = tuple(inputs_of(chain, outputs))
    steps = chain or ((Pooling(),) if task == "sentence-similarity" else ())

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.steps = torch.nn.ModuleList(map(_layers, steps))

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            given = dict(zip((*names, *beside), inputs, strict=True))
            found = dict(self.model(**{name: given[name] for name in names}, return_dict=True))
            tokens = "logits" if task == "fill-mask" else "last_hidden_state"
            if steps and tokens in found:
                found[TOKENS] = found[tokens]
            for step, layers in zip(steps, self.steps, strict=True):
                _apply(step, layers, found, given)
            return tuple(found[name] for name in outputs)

    return Exported().eval()


def _layers(step: Step) -> torch.nn.Module:
    """The weights of a step as layers, so that they are the exported module's own."""
    import torch

    layers = torch.nn.ModuleDict()
    if isinstance(step, Dense):
        layers["linear"], layers["activation"] = _linear(step.weight, step.bias), getattr(torch.nn, step.activation)()
        if step.residual is not None and step.residual.size:
            layers["residual"] = _linear(step.residual, None)
    if isinstance(step, LayerNorm):
        layers["norm"] = torch.nn.LayerNorm(len(step.weight))
        layers["norm"].load_state_dict({"weight": torch.from_numpy(step.weight), "bias": torch.from_numpy(step.bias)})
    return layers


def _linear(weight: np.ndarray, bias: np.ndarray | None) -> torch.nn.Module:
    import torch

    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    stored = {"weight": torch.from_numpy(weight)} | ({} if bias is None else {"bias": torch.from_numpy(bias)})
    layer.load_state_dict(stored)
    return layer


def _apply(step: Step, layers: Any, found: dict[str, torch.Tensor], given: Mapping[str, torch.Tensor]) -> None:
    """Add what a step computes to what has been ``found``: token_embeddings [B,S,D], sentence_embedding [B,D].

    Args:
        given: the inputs by name.
    """
    import torch

    match step:
        case Embeds():
            found[SENTENCE] = found[step.source]
        case Pooling():
            found[SENTENCE] = pool(found[TOKENS], given[MASK], step, given.get(PROMPT))
        case Splade():
            found[SENTENCE] = _splade(found[TOKENS], given[MASK], step)
        case Normalize():
            found[step.target] = torch.nn.functional.normalize(found[step.source], dim=-1)
        case LayerNorm():
            found[SENTENCE] = layers["norm"](found[SENTENCE])
        case Dense():
            x = found[step.source]
            made = layers["activation"](layers["linear"](x))
            if step.residual is not None:
                made = made + (layers["residual"](x) if step.residual.size else x)
            found[step.target] = made


def pool(tokens: torch.Tensor, mask: torch.Tensor, pooling: Pooling, prompt: torch.Tensor | None = None) -> torch.Tensor:
    """One embedding a row: tokens [B,S,D] float, mask [B,S] integer, result [B,D] or, of several modes, [B,n*D].

    A row without tokens gives zeros, for ``max`` the lowest number, and for ``cls`` its first position.
    Source: sentence-transformers' Pooling (means divide by at least 1e-9).

    Args:
        prompt: how many real tokens at each row's begin are left out, [B] integer; None leaves none out.
    """
    import torch

    begin = _first(mask) if pooling.left or prompt is not None else None
    if begin is not None and prompt is not None:
        tokens = tokens * mask.unsqueeze(-1).to(tokens.dtype)  # so that nothing shows padding, whichever token is picked
        mask = mask * (_positions(mask) >= (begin + prompt).unsqueeze(-1)).to(mask.dtype)
    pooled = [POOLED[mode](tokens, mask, begin) for mode in pooling.modes]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)


# Of each mode: tokens [B,S,D], the mask [B,S] of those that are pooled, and where rows begin [B]; None at their first position


def _cls(tokens: torch.Tensor, mask: torch.Tensor, begin: torch.Tensor | None) -> torch.Tensor:
    return tokens[:, 0] if begin is None else _at(tokens, _first(mask))


def _max(tokens: torch.Tensor, mask: torch.Tensor, begin: torch.Tensor | None) -> torch.Tensor:
    import torch

    return torch.where(mask.unsqueeze(-1) > 0, tokens, torch.finfo(tokens.dtype).min).max(dim=1).values


def _mean(tokens: torch.Tensor, mask: torch.Tensor, begin: torch.Tensor | None) -> torch.Tensor:
    kept = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1e-9)


def _mean_sqrt_len(tokens: torch.Tensor, mask: torch.Tensor, begin: torch.Tensor | None) -> torch.Tensor:
    kept = mask.unsqueeze(-1).to(tokens.dtype)
    return (tokens * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1e-9).sqrt()


def _weighted_mean(tokens: torch.Tensor, mask: torch.Tensor, begin: torch.Tensor | None) -> torch.Tensor:
    """The first real token counts once, the next one twice, and so on."""
    positions = _positions(mask).unsqueeze(0) + 1
    counted = positions if begin is None else positions - begin.unsqueeze(-1)
    kept = (mask * counted).unsqueeze(-1).to(tokens.dtype)
    return (tokens * kept).sum(dim=1) / kept.sum(dim=1).clamp(min=1e-9)


def _last(tokens: torch.Tensor, mask: torch.Tensor, begin: torch.Tensor | None) -> torch.Tensor:
    last = (mask * _positions(mask).unsqueeze(0)).max(dim=1).values
    return _at(tokens * mask.unsqueeze(-1).to(tokens.dtype), last)


def _positions(mask: torch.Tensor) -> torch.Tensor:
    import torch

    return torch.arange(mask.shape[1], dtype=mask.dtype, device=mask.device)


def _first(mask: torch.Tensor) -> torch.Tensor:
    """The position of each row's first real token, [B]; int32, as ONNX Runtime has no ArgMax of int64 everywhere."""
    import torch

    return mask.to(torch.int32).argmax(dim=1)


def _at(tokens: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """One token of each row, [B,D]."""
    index = position.unsqueeze(-1).unsqueeze(-1).expand(-1, 1, tokens.shape[-1])
    return tokens.gather(1, index).squeeze(1)


POOLED: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]] = {
    "cls": _cls,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}


def _splade(scores: torch.Tensor, mask: torch.Tensor, step: Splade) -> torch.Tensor:
    """scores [B,S,V] to [B,V]. Source: sentence-transformers' SpladePooling."""
    import torch

    kept = torch.log1p(torch.relu(scores * mask.unsqueeze(-1).to(scores.dtype)))
    kept = torch.log1p(kept) if step.twice else kept
    return kept.sum(dim=1) if step.total else kept.max(dim=1).values

"""The module that is exported: a task's outputs as a tuple in order, with pooling in the graph for sentence embeddings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from onnxfuse.architecture import Architecture
from onnxfuse.errors import ExportError
from onnxfuse.exporters.home import Home
from onnxfuse.io import files

if TYPE_CHECKING:
    import torch

MODULES = "modules.json"

TRANSFORMER = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "max_seq_length": None,
    "do_lower_case": None,
    "unpad_inputs": None,
    "processing_kwargs": None,
}
"""What sentence_bert_config.json may ask for, and the value that is exported; None where it concerns text before it is a graph's
input. Source: sentence-transformers 6.2 (``Transformer.config_keys``), 5 and 2."""

ALONE = {"feature-extraction": "feature-extraction", "sequence-classification": "text-classification", "fill-mask": "fill-mask"}
"""What a Transformer alone may be asked for (a cross-encoder's classification), and our tasks."""

OLD_MODE = "pooling_mode_"
OLD_MODES = {f"{OLD_MODE}mean_tokens": "mean", f"{OLD_MODE}cls_token": "cls", f"{OLD_MODE}max_tokens": "max"}
"""Kinds of pooling as sentence-transformers below 6 writes them, each true or false."""


@dataclass(frozen=True)
class Pooling:
    """How token embeddings become one sentence embedding.

    Args:
        mode: ``mean`` (over tokens that the mask keeps), ``cls`` (the first token) or ``max``.
        normalize: whether the result has length 1.
    """

    mode: str = "mean"
    normalize: bool = False


@dataclass(frozen=True)
class Module:
    """One module of a sentence encoder, as modules.json names it: its class, and the folder of its files; empty at the top."""

    kind: str
    folder: str


def read_modules(home: Home) -> tuple[Module, ...]:
    """The modules that modules.json names; none when there is no such file. Raises ModelError, ExportError."""
    path = home.find(MODULES)
    if path is None:
        return ()
    named = files.read_json(path)
    wrong = f"{home}: {MODULES} is no list of modules with a type and a path; save the model again with sentence-transformers"
    if not isinstance(named, list) or not named:
        raise ExportError(wrong)
    modules = []
    for module in named:
        kind, folder = (module.get("type"), module.get("path")) if isinstance(module, dict) else (None, None)
        if not isinstance(kind, str) or not isinstance(folder, str):
            raise ExportError(wrong)
        theirs = kind.split(".")[0] == "sentence_transformers"
        modules.append(Module(kind.rsplit(".", 1)[-1] if theirs else kind, home.inner(folder).folder))
    return tuple(modules)


def read_asked(home: Home, modules: tuple[Module, ...]) -> tuple[str, Pooling | None]:
    """The task that modules ask for, whole, and its pooling. Raises ExportError for what is not exported, and ModelError."""
    kinds = [module.kind for module in modules]
    if kinds not in (["Transformer"], ["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise _refused(home, f"{MODULES} asks for {' -> '.join(kinds)}, wanted Transformer -> Pooling, with Normalize or without")
    asked = _config(home.inner(modules[0].folder), "sentence_bert_config.json")
    if kinds == ["Transformer"]:
        task = ALONE.get(asked.get("transformer_task", "feature-extraction"))
        if task is None:
            raise _refused(home, f"{MODULES} asks for {asked['transformer_task']}, wanted one of {', '.join(ALONE)}")
        return task, None
    return "sentence-similarity", _pooling(home, modules, asked)


def _pooling(home: Home, modules: tuple[Module, ...], asked: dict[str, Any]) -> Pooling:
    for field, wanted in TRANSFORMER.items():
        if field in asked and wanted is not None and asked[field] != wanted:
            raise _refused(home, f"sentence_bert_config.json asks for {field} {asked[field]!r}, wanted {wanted!r}")
    _require_known(home, "sentence_bert_config.json", asked, TRANSFORMER)
    inner = home.inner(modules[1].folder)
    config = _config(inner, "config.json")
    if not config:
        raise ExportError(f"{home}: {MODULES} names a Pooling, whose {modules[1].folder}/config.json is not there; copy it there")
    modes = [name for name, value in config.items() if name.startswith(OLD_MODE) and value]
    chosen = config.get("pooling_mode") or [OLD_MODES.get(name, name) for name in modes]
    chosen = [chosen] if isinstance(chosen, str) else chosen
    if chosen not in (["mean"], ["cls"], ["max"]):
        kind = " and ".join(map(str, chosen)) or "of no kind"
        raise _refused(home, f"its pooling is {kind}, wanted mean, cls or max, one of them")
    if config.get("include_prompt") is False:
        raise _refused(home, "its pooling leaves prompts out (include_prompt), whose length is no input of a graph")
    _require_known(
        home,
        f"{inner}/config.json",
        {name: value for name, value in config.items() if not name.startswith(OLD_MODE)},
        ("word_embedding_dimension", "embedding_dimension", "pooling_mode", "include_prompt"),
    )
    return Pooling(chosen[0], modules[-1].kind == "Normalize")


def _config(home: Home, name: str) -> dict[str, Any]:
    path = home.find(name)
    return {} if path is None else files.read_object(path)


def _require_known(home: Home, name: str, config: dict[str, Any], known: Iterable[str]) -> None:
    """Refuse what a module's config asks for and nobody here has heard of."""
    unknown = [field for field, value in config.items() if field not in known and value not in (None, False)]
    if unknown:
        raise _refused(home, f"{name} asks for {', '.join(unknown)}, which onnxfuse does not know")


def _refused(home: Home, why: str) -> ExportError:
    return ExportError(f"{home}: {why}; export the encoder alone with --task feature-extraction")


def wrap(
    model: Any, family: Architecture, task: str, outputs: tuple[str, ...], pooling: Pooling | None = None
) -> torch.nn.Module:
    """A module whose forward takes the family's inputs in order and returns ``outputs`` of a task as a tuple."""
    import torch

    names = tuple(family.inputs_of(model.config.to_dict(), task))

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            given = dict(zip(names, inputs, strict=True))
            result = self.model(**given, return_dict=True)
            if task == "sentence-similarity":
                tokens = result["last_hidden_state"]
                sentence = pool(tokens, given["attention_mask"], pooling or Pooling())
                result = {"token_embeddings": tokens, "last_hidden_state": tokens, "sentence_embedding": sentence}
            return tuple(result[name] for name in outputs)

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

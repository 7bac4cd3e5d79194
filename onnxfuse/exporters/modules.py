"""modules.json of a sentence encoder: the modules that it names, the task they ask for, and what follows the encoder.

Source: sentence-transformers 6.2, and how 2 to 5 save models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxfuse.architecture import PIXELS, Architecture
from onnxfuse.errors import ExportError
from onnxfuse.exporters.home import Home
from onnxfuse.exporters.module_readers import MODULES, READERS, read_config, refused, require_known
from onnxfuse.exporters.sentence import SENTENCE, Chain, Embeds, Step
from onnxfuse.io import files

TOWERS = "CLIPModel"
"""The old module of a model of two towers; version 6 names their methods in a Transformer's ``modality_config``."""

ENCODERS = ("Transformer", "MLMTransformer", TOWERS)
"""The modules that a model of ``transformers`` is; the second the old one of SPLADE."""

TRANSFORMER: dict[str, Any] = {
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

FILL_MASK = TRANSFORMER | {
    "transformer_task": "fill-mask",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
}
"""The same of an encoder whose scores of words are pooled (SPLADE)."""

ALONE = {"feature-extraction": "feature-extraction", "sequence-classification": "text-classification", "fill-mask": "fill-mask"}
"""What a Transformer alone may be asked for (a cross-encoder's classification), and our tasks."""


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


def read_asked(home: Home, modules: tuple[Module, ...], tower: Architecture | None = None) -> tuple[str, Chain]:
    """The task that modules ask for, whole, and what follows the encoder.

    Args:
        tower: the family of the tower that is exported, of a checkpoint of two; None of others.

    Raises:
        ModelError, ExportError: another module, or something else of one than onnxfuse exports.
    """
    first, rest = modules[0], modules[1:]
    unknown = [module.kind for module in rest if module.kind not in READERS]
    if first.kind not in ENCODERS or unknown or (first.kind == TOWERS and tower is None):
        named = " -> ".join(module.kind for module in modules)
        known = ", ".join(READERS)
        raise refused(home, f"{MODULES} asks for {named}, wanted Transformer and behind it some of {known}")
    asked = read_config(home.inner(first.folder), "sentence_bert_config.json")
    if tower is not None:
        return _asked_of_tower(home, first, rest, asked, tower)
    default = "fill-mask" if first.kind == "MLMTransformer" else "feature-extraction"
    task = asked.get("transformer_task", default)
    if not rest:
        if task not in ALONE:
            raise refused(home, f"{MODULES} asks for {task}, wanted one of {', '.join(ALONE)}")
        return ALONE[task], ()
    scores = rest[0].kind == "SpladePooling"
    _require_asked(home, {"transformer_task": task} | asked, FILL_MASK if scores else TRANSFORMER)
    return "fill-mask" if scores else "sentence-similarity", _chain(home, first, rest)


def _asked_of_tower(
    home: Home, first: Module, rest: tuple[Module, ...], asked: Mapping[str, Any], tower: Architecture
) -> tuple[str, Chain]:
    """What a model of two towers asks of one: its embedding, and what follows it. Raises ModelError, ExportError."""
    kind = "image" if PIXELS in tower.inputs else "text"
    method = {"method": f"get_{kind}_features"}
    named = asked.get("modality_config", {kind: method} if first.kind == TOWERS else None)
    part = named.get(kind) if isinstance(named, dict) else None
    given = {"pooler_output", None}  # that field of what the method gives, or all of it (transformers 4)
    if not isinstance(part, dict) or part | method != part or part.get("method_output_name") not in given:
        raise refused(home, f"sentence_bert_config.json asks for {kind} by {part!r:.80}, wanted {method['method']}")
    exported = TRANSFORMER | {"module_output_name": SENTENCE, "modality_config": None}
    _require_asked(home, asked, exported)
    task = next(iter(tower.tasks))
    (output,) = tower.outputs_of(task)
    return task, _chain(home, first, rest, Embeds(output))


def _chain(home: Home, first: Module, rest: tuple[Module, ...], *steps_before: Step) -> Chain:
    """The steps of the modules behind the first. Raises ExportError where none gives the sentence embedding."""
    steps = list(steps_before)
    pooled = bool(steps)
    for module in rest:
        inner = home.inner(module.folder)
        config = read_config(inner, "config.json")
        made = READERS[module.kind](inner, config, home.inner(first.folder))
        pools = module.kind in ("Pooling", "SpladePooling")
        if pools == pooled and getattr(made, "source", SENTENCE) == SENTENCE and made is not None:
            raise refused(home, f"{MODULES} has {module.kind} {'behind another pooling' if pools else 'in front of the pooling'}")
        pooled |= pools
        steps += [] if made is None else [made]
    if not pooled:
        raise refused(home, f"{MODULES} asks for no pooling, so that there is no {SENTENCE}")
    return tuple(steps)


def _require_asked(home: Home, asked: Mapping[str, Any], exported: Mapping[str, Any]) -> None:
    for field, wanted in exported.items():
        if field in asked and wanted is not None and asked[field] != wanted:
            raise refused(home, f"sentence_bert_config.json asks for {field} {asked[field]!r}, wanted {wanted!r}")
    require_known(home, "sentence_bert_config.json", asked, exported)

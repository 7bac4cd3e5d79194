"""What a ``transformers`` checkpoint says of itself: config.json and what lies beside it, read before any weight."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxfuse import catalog
from onnxfuse.architecture import Architecture, Tower
from onnxfuse.errors import ExportError, ModelError, one_line
from onnxfuse.exporters import bounds
from onnxfuse.exporters.home import ADAPTER, MERGE, Home
from onnxfuse.exporters.loaded import Arrays
from onnxfuse.exporters.module_readers import MODULES, PROMPTS
from onnxfuse.exporters.modules import ENCODERS, Module, read_asked, read_modules
from onnxfuse.exporters.sentence import Chain
from onnxfuse.exporters.tasks import checked, task_of
from onnxfuse.io import files, folders, places

RETURNED = ("output_attentions", "output_hidden_states", "return_dict", "torchscript", "chunk_size_feed_forward")
"""config.json's fields of how a class returns what it computes, or in which pieces: an export asks for its outputs by name."""

POSITIONS = "position_embedding_type"
"""config.json's field for how positions are counted: transformers 5 computes absolute ones whatever it says."""


@dataclass(frozen=True)
class Description:
    """What a ``transformers`` checkpoint says of itself, and what follows from it and from what is asked.

    Args:
        home: where its model lies.
        config: its config object, and ``fields``: config.json.
        family: its architecture.
        task: the one to export; None when config.json names a class that has none of the family's.
        asked: whether the user, or modules.json, asked for that task.
        saved_as: the class that config.json names; empty when it names none.
        chain: what modules.json asks for behind the encoder; empty where there is nothing, or it does not matter.
        files, texts: as of ``Checkpoint``.
        part: which part of it is exported; None for the whole.
    """

    home: Home
    config: Any
    fields: Mapping[str, Any]
    family: Architecture
    task: str | None
    asked: bool
    saved_as: str
    chain: Chain
    files: dict[str, Path]
    texts: dict[str, str]
    part: Tower | None = None

    def own(self, stored: Arrays) -> Arrays:
        """The weights of the part that is exported."""
        return stored if self.part is None else {n: array for n, array in stored.items() if n.startswith(self.part.weights)}

    @property
    def assumed(self) -> list[str]:
        """What nothing in the checkpoint says, for people."""
        unsaid = self.task == "sentence-similarity" and not self.chain
        return ["pooled by mean as no modules.json says how"] if unsaid else []

    @property
    def unknown(self) -> str:
        """What config.json asks for that ``transformers`` does not know, for people; empty when there is nothing."""
        known = {*type(self.config)().to_dict(), *RETURNED, "torch_dtype"}
        odd = [
            f"{name} {value!r}"
            for name, value in self.fields.items()
            if name not in known and isinstance(value, (str, list)) and not name.startswith("_")
        ]
        if not odd:
            return ""
        return _unknown(odd, self.config)

    @property
    def misfit(self) -> str:
        """Why the class that config.json names has none of the family's tasks, for people."""
        others = [name for name, family in catalog.families().items() if task_of(self.saved_as, family)]
        if others:
            return f"a class of {others[0]}, and its config.json has model type {self.family.model_type!r}"
        return "which onnxfuse does not export"


def describe(source: str, task: str | None, model_type: str | None) -> Description:
    """Read config.json and what lies beside it.

    Args:
        task: None takes the one that the checkpoint was saved for.
        model_type: overrides config.json.

    Raises:
        ExportError, ModelError (another architecture, a broken file), UsageError (unknown task).
    """
    top, home, modules = homes(source)
    whole = home.config()
    bounds.require_few(whole, str(home))
    family = family_of(whole, model_type, str(home))
    fields = tower_fields(whole, family, str(home))
    if task is not None:
        checked(task, family)
    if fields.get("quantization_config"):
        raise ExportError(
            f"{home} has quantized weights (quantization_config in config.json); give the checkpoint that it was quantized from"
        )
    if home.has(ADAPTER):
        raise ExportError(f"{home} has an adapter ({ADAPTER}), which onnxfuse does not apply; {MERGE}")
    tower = family if fields is not whole else None
    reads = bool(modules) and task in (None, "sentence-similarity")
    asked, chain = read_asked(top, modules, tower) if reads else (task, ())
    if chain and task not in (None, asked):
        raise ExportError(f"{home}: modules.json asks for task {asked}, --task for {task}; leave it out")
    saved_as = _saved_as(fields, home)
    chosen = task or asked or (task_of(saved_as, family) if saved_as else _plain(family))
    return Description(
        home,
        config_object(fields, family, home),
        fields,
        family,
        chosen and checked(chosen, family),
        asked is not None,
        saved_as,
        chain,
        *beside(top, home, () if tower else modules),
        None if tower is None else tower.tower,
    )


def class_task(source: str) -> str | None:
    """The task of the class that a checkpoint was saved as, whatever modules.json asks for; None where none is known.

    Raises:
        ExportError, ModelError (another architecture, a broken file).
    """
    _, home, _ = homes(source)
    family = family_of(home.config(), None, str(home))
    return task_of(_saved_as(tower_fields(home.config(), family, str(home)), home), family)


def homes(source: str) -> tuple[Home, Home, tuple[Module, ...]]:
    """A checkpoint's home, where in there its model lies, and the modules that modules.json names. Raises as ``read_modules``."""
    top = Home(source)
    modules = read_modules(top)
    return top, top.inner(modules[0].folder) if modules and modules[0].kind in ENCODERS else top, modules


def _plain(family: Architecture) -> str:
    """The task of a checkpoint whose config.json names no class."""
    return next(iter(family.tasks)) if family.tower else "feature-extraction"


def _saved_as(fields: Mapping[str, Any], home: Home) -> str:
    """The class that config.json names, as PyTorch's is called; empty when it names none. Raises ModelError."""
    named = fields.get("architectures") or []
    names = [named] if isinstance(named, str) else named
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"{home}: config.json has {named!r} as architectures, wanted a list with the name of a class")
    return str(next(iter(names), "")).removeprefix("TF")


def beside(top: Home, home: Home, modules: tuple[Module, ...]) -> tuple[dict[str, Path], dict[str, str]]:
    """The files that belong beside the exported model, and those that say something else there: the encoder lies at the top, and
    nothing says where on a machine it lay.

    Args:
        modules: those that a model exported whole has; none of a tower, which is not what modules.json describes.
    """
    found, texts = processor_files(home), {}
    beside = ("config.json", "model.safetensors")  # Dense has weights, which are in the graph; others read them from here
    inner = [f"{module.folder}/{name}" for module in modules[1:] if module.folder for name in beside]
    for name in (*([MODULES] if modules else []), PROMPTS, *inner):
        path = top.find(name)
        if path is not None:
            found[name] = path
    if home != top and MODULES in found:
        named = files.read_json(found.pop(MODULES))
        texts[MODULES] = json.dumps([named[0] | {"path": ""}, *named[1:]], indent=2) + "\n"
    for name in [name for name in found if name.endswith(".json") and name in folders.PROCESSOR_FILES]:
        content = files.read_json(found[name])
        if (kept := places.cleaned(content)) != content:
            texts[name] = json.dumps(kept, indent=2, ensure_ascii=False) + "\n"
            del found[name]
    return found, texts


def processor_files(home: Home) -> dict[str, Path]:
    """The processor files of a checkpoint, by their names. Raises ModelError for one that is broken."""
    found = {name: home.find(name) for name in folders.PROCESSOR_FILES}
    for name, path in found.items():
        if path is not None and name.endswith(".json"):
            files.read_json(path)
    return {name: path for name, path in found.items() if path is not None}


def family_of(fields: Mapping[str, Any], model_type: str | None, where: str) -> Architecture:
    """The family of a checkpoint, by config.json or as asked. Raises ModelError."""
    named = model_type if fields.get("model_type") is None else fields["model_type"]
    if named is None:
        known = ", ".join(catalog.families())
        raise ModelError(f"{where}: config.json has no model_type; if it is one of {known}, say so with --model-type")
    towers = [family for family in catalog.families().values() if family.tower is not None and family.tower.whole == named]
    if towers and model_type is None:
        choices = " or ".join(f"--model-type {family.model_type}" for family in towers)
        raise ModelError(f"{where} has model type {named!r} in config.json, whose towers are exported one by one: say {choices}")
    try:
        family = catalog.architecture(model_type or named)
    except ModelError as error:
        raise ModelError(
            f"{error}; an .onnx file of such a model, whoever wrote it, fuses all the same: onnxfuse optimize"
        ) from error
    if named != family.model_type and family not in towers:
        raise ModelError(f"{where} has model type {named!r} in config.json, --model-type says {family.model_type!r}")
    return family


def tower_fields(fields: Mapping[str, Any], family: Architecture, where: str) -> Mapping[str, Any]:
    """config.json of a family's own: the part of a whole checkpoint's that is about its tower. Raises ModelError."""
    if family.tower is None or fields.get("model_type") != family.tower.whole:
        return fields
    part = fields.get(family.tower.config, {})
    if not isinstance(part, dict):
        raise ModelError(f"{where}: config.json has {part!r:.80} as {family.tower.config}, wanted an object; correct it")
    whole = {name: fields[name] for name in family.tower.shared if name in fields}
    return part | whole | {"model_type": family.model_type}


def config_object(fields: Mapping[str, Any], family: Architecture, home: Home) -> Any:
    """config.json as ``transformers`` reads it, whatever it says of how outputs are returned. Raises ExportError."""
    import transformers

    if family.model_type not in transformers.CONFIG_MAPPING:
        raise ExportError(
            f"transformers {transformers.__version__} does not know model type {family.model_type!r} of {home}; "
            "install another version"
        )
    read = {name: value for name, value in fields.items() if name not in RETURNED} | {"model_type": family.model_type}
    try:
        config = transformers.CONFIG_MAPPING[family.model_type].from_dict(read)
    except Exception as error:
        raise ExportError(
            f"transformers {transformers.__version__} cannot read config.json of {home}: {one_line(error)}; correct it"
        ) from error
    kind = fields.get(POSITIONS, "absolute")
    if kind != "absolute" and POSITIONS not in type(config)().to_dict():
        raise ExportError(f"{home}: {_unknown([f'{POSITIONS} {kind!r}'], config)}; transformers 4 does")
    return config


def _unknown(odd: list[str], config: Any) -> str:
    import transformers

    return (
        f"config.json asks for {', '.join(odd)}, which {type(config).__name__} of transformers {transformers.__version__} "
        "does not know"
    )


def cannot_load(description: Description, library: str, kind: Any, error: Exception) -> ExportError:
    """The error for a checkpoint that a library cannot make a model of class ``kind`` from."""
    said = one_line(error)
    if isinstance(error, KeyError):  # its text is the key alone
        fields = [name for name, value in description.fields.items() if error.args and value == error.args[0]]
        said = f"it does not know {' '.join([*fields[:1], said])}"
    return ExportError(
        f"{library} cannot load {description.home} as {kind.__name__}: {said}; correct config.json, or save it anew "
        "with its weights"
    )

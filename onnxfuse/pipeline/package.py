"""Lay a model's files into a folder as another library wants it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from onnxfuse import catalog, layouts
from onnxfuse.config import PackageConfig
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.evaluation import calibrated
from onnxfuse.exporters.description import beside, homes
from onnxfuse.exporters.tasks import task_of
from onnxfuse.io import atomic, files, folders, onnx_file, places
from onnxfuse.io.ours import Replaceable, inputs_of, is_ours, require_elsewhere
from onnxfuse.io.progress import Progress, silent
from onnxfuse.layouts import FLOAT, INT8, Content, Layout
from onnxfuse.layouts.api import above
from onnxfuse.pipeline.card import measured
from onnxfuse.pipeline.optimize import kind_of
from onnxfuse.pipeline.step import unwritten
from onnxfuse.quantization.linears import integer_node
from onnxfuse.runtime import Settings, open_runner
from onnxfuse.verify import verdict
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from onnxfuse.verify.opened import Opened
from onnxfuse.verify.parity import Parity

MODELS = (folders.OPTIMIZED, folders.MODEL, folders.QUANTIZED)
"""Of each precision the first that is there is packaged."""


@dataclass(frozen=True)
class Packaged:
    """A folder that another library opens; usable as its path.

    Args:
        layout: the name of its layout.
        models: the files with models, by precision, and ``sizes`` in bytes.
        files: the names of all files, the record apart.
        use: by precision, the line that opens the model there.
        parity: of models in another format than ONNX, with the file they were made from.
    """

    path: Path
    layout: str
    models: Mapping[str, Path]
    sizes: Mapping[str, int]
    files: tuple[str, ...]
    use: Mapping[str, str]
    parity: Mapping[str, Parity]

    def __fspath__(self) -> str:
        return str(self.path)

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "layout": self.layout,
            "models": {
                each: {
                    "path": str(path),
                    "size": self.sizes[each],
                    "use": self.use[each],
                    "parity": self.parity[each].to_json() if each in self.parity else None,
                }
                for each, path in self.models.items()
            },
            "files": list(self.files),
        }


def package_folder(source: Path, layout: str, out: Path | None) -> Path:
    """Where a package goes: ``out``, or a folder of the model's and the layout's names. Raises as ``output_folder``."""
    return folders.PACKAGES / f"{_name(source)}-{layout}" if out is None else folders.output_folder(out)


def package(plan: PackageConfig, progress: Progress = silent) -> Packaged:
    """Lay the models of a folder, or one file, with what belongs to them, into a folder as ``plan.layout`` wants it.

    ``model_optimized.onnx``, or else ``model.onnx``, becomes the float model, ``model_quantized.onnx`` the int8 one. What an
    earlier call left there and this one does not write goes.

    Raises:
        UsageError: no such layout; ``plan.out`` is the model's own folder, or holds a file of others.
        ModelError: the layout's library cannot serve the model; the text says the next step.
        ParityError: a converted model computes something else.
    """
    chosen, home = layouts.layout(plan.layout), folders.home_of(plan.source)
    content = content_of(plan.source)
    if why := chosen.refusal(content):
        raise ModelError(f"{plan.source} cannot serve in {chosen.label}: {why}")
    require_elsewhere(plan.out, [home, plan.source.parent])
    guard = Replaceable(inputs_of(plan.source, ()), plan.overwrite)
    places = chosen.placed(content)
    guard.require_in(plan.out, *map(str, places.values()), *_beside(chosen, content, home), folders.RECORD)
    with atomic.replacing(plan.out / folders.RECORD, guard) as staged:
        root, parity = staged.parent, {}
        for precision, place in places.items():
            progress(f"writing {place}")
            _write(chosen, content, precision, root, place)
            _lay_beside(home, root / above(place))
            if chosen.convert is not None:
                progress(f"comparing {place} with {content.models[precision]}")
                parity[precision] = _compare(content.models[precision], root / place, chosen)
        names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        sizes = {each: _size(root / place) for each, place in places.items()}
        step = f"package for {plan.layout}"
        atomic.drop(staged, _left_over(plan.out, step, names))
        record = {"layout": plan.layout, "name": content.name}  # no path of this machine: others read it
        known = measured({each: model.path for each, model in content.models.items()})
        told = {"models": {each: str(at) for each, at in places.items()}, **({"measured": known} if known else {})}
        folders.record(plan.out, step, record, told, staged=staged)
    models = {each: plan.out / place for each, place in places.items()}
    lines = {each: chosen.use(content, each, str(plan.out)) for each in places}
    return Packaged(plan.out, plan.layout, models, sizes, tuple(names), lines, parity)


# What is packaged ------------------------------------------------------------------------------------------------


def _name(source: Path) -> str:
    """What the package of a file is called: as its folder is, or for one that is no name of ours as the file itself."""
    home = folders.home_of(source).resolve()
    return (home.name if source.name in MODELS else source.stem) or "model"


def content_of(source: Path) -> Content:
    """The models beside ``source``, and what is known of them. Raises ModelError."""
    home = folders.home_of(source)
    paths = [source] if source.name not in MODELS else folders.models_in(source.parent, MODELS)
    config = dict(folders.read_config(source))
    known = [Opened(path, config=config) for path in paths]
    found = {INT8 if integer_node(each.model) is not None else FLOAT: each for each in reversed(known)}
    models = {each: found[each] for each in (FLOAT, INT8) if each in found}
    _require_alike(list(models.values()))
    there, texts = _files(home)
    plan = folders.recorded(source.parent).get("export", {}).get("plan", {})
    origin = plan.get("source") if isinstance(plan, dict) else None
    return Content(_name(source), models, config, _task(config), frozenset({*there, *texts}), _origin(origin, source.parent))


def _origin(named: Any, home: Path) -> str:
    """The checkpoint that a record names, as a user names it here; SOURCE where nobody knows."""
    try:
        return places.found(named, home) if isinstance(named, str) else "SOURCE"
    except UsageError:
        return "SOURCE"


def _require_alike(models: Sequence[Opened]) -> None:
    """Raises ModelError: two models take or give other things, so that one of them is of another export."""
    names = [
        [sorted(value.name or "" for value in part) for part in (m.model.graph.inputs, m.model.graph.outputs)] for m in models
    ]
    for model, one in zip(models[1:], names[1:], strict=True):
        if one != names[0]:
            raise ModelError(
                f"{model} takes {one[0]} and gives {one[1]}, {models[0]} {names[0][0]} and {names[0][1]}; make it anew"
            )


def _task(config: Mapping[str, Any]) -> str:
    """What config.json says that a model's outputs are for: our export's word, or the class of ``transformers``; else empty."""
    if isinstance(known := config.get("onnxfuse_task"), str):
        return known
    family = catalog.families().get(str(config.get("model_type")))
    named = config.get("architectures") or [""]
    return (task_of(str(named[0]), family) or "") if family is not None and isinstance(named, list) else ""


def _files(home: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """What lies beside a model by its name, and what says something else in a package. Raises ModelError, ExportError."""
    return beside(*homes(str(home)))


# What is written -------------------------------------------------------------------------------------------------


def _write(chosen: Layout, content: Content, precision: str, root: Path, place: PurePosixPath) -> None:
    model, target = content.models[precision], root / place
    target.parent.mkdir(parents=True, exist_ok=True)
    if chosen.convert is None:
        onnx_file.save(model.model.clone(), target)
    else:
        chosen.convert(model.path, target)
    for name, text in chosen.texts(content, precision, place).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")


def _lay_beside(home: Path, folder: Path) -> None:
    """config.json, the tokenizer and the like, without paths of this machine and in words that transformers 4 knows too."""
    there, texts = _files(home)
    if (home / "config.json").is_file():
        there["config.json"] = home / "config.json"
    for name, path in there.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for name in SAVED:
        if (folder / name).is_file():
            text = json.dumps(_clean(files.read_json(folder / name)), indent=2, ensure_ascii=False) + "\n"
            (folder / name).write_text(text, encoding="utf-8")


def _beside(chosen: Layout, content: Content, home: Path) -> list[str]:
    """The names of the files that come beside the models."""
    names: set[str] = set()
    for precision, place in chosen.placed(content).items():
        laid = [*(name for part in _files(home) for name in part), "config.json"]
        names |= {str(above(place) / name) for name in laid} | {*chosen.texts(content, precision, place)}
    return sorted(names)


SAVED = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "preprocessor_config.json")
"""What transformers saves, with places and with names of its classes."""

CLASSES = {"TokenizersBackend": "PreTrainedTokenizerFast"}
"""tokenizer_class of transformers 5, and what 4 and 5 call the same class."""


def _clean(value: Any) -> Any:
    """JSON without the paths of a machine, and with the class name that both versions of transformers know."""
    kept = places.cleaned(value)
    if isinstance(kept, dict) and kept.get("tokenizer_class") in CLASSES:
        kept["tokenizer_class"] = CLASSES[kept["tokenizer_class"]]
    return kept


def _compare(model: Opened, path: Path, chosen: Layout) -> Parity:
    """Hold a converted model against its ONNX file, as every other result is. Raises ParityError."""
    kind = kind_of(model.model)
    try:
        real = calibrated.real_inputs(model.path)
    except UsageError:
        real = None
    run = model.runner()
    random, known = expect(run, grid(model.profile)), [] if real is None else expect(run, real.cases)
    found = verdict.judge(random, known, open_runner(path, Settings(chosen.runtime)), kind, "" if real is None else real.name)
    return found.require(f"{chosen.label} computes something else than {model}", unwritten(path))


def _size(path: Path) -> int:
    """Bytes of a model with the files of its weights, which are called after it."""
    return sum(each.stat().st_size for each in path.parent.glob(f"{path.stem}.*"))


def _left_over(out: Path, step: str, names: Sequence[str]) -> list[str]:
    """What an earlier call wrote and this one does not."""
    made = folders.recorded(out).get(step, {}).get("made", {})
    return [name for name in made if name not in names and is_ours(out, name)] if isinstance(made, dict) else []

"""What lies in a model's folder: the names of files, config.json, and the record of what was done."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnxfuse.errors import ModelError, UsageError
from onnxfuse.io import atomic, commit, door, files, places
from onnxfuse.io.commit import UNTOUCHED

MODEL, OPTIMIZED, QUANTIZED, RECORD = "model.onnx", "model_optimized.onnx", "model_quantized.onnx", "onnxfuse.json"

IR, IR_QUANTIZED = "openvino_model.xml", "openvino_model_quantized.xml"
"""In OpenVINO's own format, as optimum-intel and the hub call them."""

OPENED = (QUANTIZED, OPTIMIZED, MODEL)
"""Of a folder's ONNX files, the first that is there is opened."""

RUN = (MODEL, IR)
"""What stands for a folder where a model is run and nothing made of it."""

STATIC = "model_quantized_static.onnx"
"""The int8 model whose activations have scales from calibration, where ``run`` made one beside ``QUANTIZED``."""

FUSED = "model_optimized_other.onnx"
"""The model fused for another runtime than ONNX Runtime, where ``run`` found that to be the fastest form."""

FP16, BF16 = "model_fp16.onnx", "model_bf16.onnx"
HALVED = {"fp16": FP16, "bf16": BF16}
"""The optimized model in half precision, by which one, as the hub calls them."""

MADE = (MODEL, OPTIMIZED, FUSED, FP16, BF16, QUANTIZED, STATIC)
"""What the verbs write as ONNX files where nothing else is asked for."""

LITERT = ("model.tflite", "model_fp16.tflite", "model_int8.tflite")

EXPORTS = Path("onnx")
"""Where ``export`` puts a model when no folder is given."""

PACKAGES = Path("packages")
"""Where ``package`` puts a folder when none is given."""

RECORDED = (
    "onnxfuse",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "onnxruntime-ep-openvino",
    "nncf",
    "torch",
    "transformers",
    "tensorflow",
    "tf2onnx",
    "keras",
    "keras-hub",
    "ai-edge-litert",
    "numpy",
)

PROCESSOR_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "chat_template.jinja",
    "preprocessor_config.json",
    "processor_config.json",
    "sentence_bert_config.json",
)
"""Files beside a model that a user of the exported one needs."""


APART = ("onnx", "openvino")
"""Folders of the hub that hold models apart from their config.json and tokenizer, which lie above. (Triton's versions
are such too, and called by numbers.)"""


def source_file(model: Path | None, *names: str) -> Path:
    """The file that a verb works on: the given file, or the first of ``names`` in the given, current or newest folder.

    Of a folder that holds none of them, those in the folders of ``APART`` in there, or in its newest version.

    Raises:
        UsageError: nothing is there.
    """
    if model is not None and not model.is_dir():
        return files.require_file(model)
    folders = [model] if model is not None else [Path(), *_newest_exports()]
    for folder in folders:
        if found := models_in(folder, names):
            return found[0]
    where = f"{model} holds" if model is not None else f"the current folder and {EXPORTS}/ hold"
    advice = "give an .onnx file or a folder, or run: onnxfuse export NAME" if model is None else _advice(model)
    raise UsageError(f"{where} no {' and no '.join(names)}; {advice}")


def pair(first: Path, second: Path | None) -> tuple[Path, Path]:
    """Two models to hold against each other; of a folder its export, and what became of it. Raises as ``source_file``."""
    if second is None:
        if not first.is_dir():
            files.require_file(first)
            raise UsageError(f"{first} is one file; give the other one too, or a folder that holds {MODEL} and {OPTIMIZED}")
        return source_file(first, MODEL), source_file(first, OPTIMIZED)
    return source_file(first, MODEL), source_file(second, MODEL)


def _advice(folder: Path) -> str:
    """What to do where a folder holds no file of the names that are wanted."""
    if others := sorted(path for depth in ("*", "*/*", "*/*/*") for path in folder.glob(f"{depth}.onnx")):
        return f"give one of {', '.join(str(path) for path in others[:5])}{' ...' if others[5:] else ''}"
    if other := models_in(folder, (IR, IR_QUANTIZED)):
        return f"{other[0]} is in OpenVINO's own format, which is not rewritten: give the .onnx file that it was made from"
    return "give an .onnx file or a folder, or run: onnxfuse export NAME"


def _versions(folder: Path) -> list[Path]:
    """Triton's versions of a model, the newest first."""
    found = [path for path in folder.glob("[1-9]*") if is_apart(path.name) and path.is_dir()]
    return sorted(found, key=lambda path: -int(path.name))


def models_in(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of a folder with these names, in their order; or those of the first folder of ``APART`` in it that has some, or
    of its newest version that has.
    """
    for place in (folder, *(folder / name for name in APART), *_versions(folder)):
        commit.settle(place)
        if found := [place / name for name in names if (place / name).is_file()]:
            return found
    return []


def is_apart(name: str) -> bool:
    """Whether a folder called so holds models apart from what belongs to them: one of ``APART``, or a version of Triton's."""
    return name in APART or name.isdecimal()


def home_of(model: Path) -> Path:
    """The folder of a model's config.json, tokenizer and the like: its own, or that above one which ``is_apart`` and has none."""
    folder = model.parent
    apart = is_apart(folder.absolute().name) and not os.path.lexists(folder / "config.json")
    above = folder.parent if folder.name else folder / ".."
    return above if apart and os.path.lexists(above / "config.json") else folder


def export_folder(source: str, out: Path | None) -> Path:
    """Where an export goes: ``out``, or a folder of the source's name under ``EXPORTS``. Raises as ``output_folder``."""
    if out is not None:
        return output_folder(out)
    path = Path(source)
    return EXPORTS / (path.stem if path.suffix == ".keras" else path.resolve().name if path.is_dir() else source)


def _newest_exports() -> list[Path]:
    return sorted((path.parent for path in EXPORTS.rglob(MODEL)), key=lambda folder: -(folder / MODEL).stat().st_mtime)


def output_file(source: Path, out: Path | None, name: str) -> Path:
    """Where a verb writes: ``out`` (a file, or a folder for ``name``), or ``name`` beside the source.

    Raises:
        UsageError: that is the source itself.
    """
    path = source.with_name(name) if out is None else out if out.suffix == ".onnx" else out / name
    if path.exists() and path.samefile(source):
        raise UsageError(f"the output {path} is the input itself; choose another with --output")
    return path


def output_folder(out: Path) -> Path:
    """Where a verb writes more than one file. Raises UsageError for a file, or a name that only a model's file has."""
    if out.is_file() or out.suffix in (".onnx", ".tflite"):
        raise UsageError(f"-o {out}: an export is a folder, with config.json beside the model; give a folder's name")
    return out


def read_config(source: Path) -> dict[str, Any]:
    """config.json beside a model, or an empty dict where there is none. Raises ModelError when it is no JSON object."""
    path = home_of(source) / "config.json"
    commit.settle(path.parent)
    return files.read_object(door.linked(path, path.parent)) if os.path.lexists(path) else {}


def record(
    folder: Path,
    step: str,
    plan: Any,
    results: dict[str, Any],
    *,
    staged: Path | None = None,
    files: Sequence[str] = (),
    kept: str = UNTOUCHED,
) -> None:
    """Add a step to the folder's onnxfuse.json: the plan, the versions, and what came out; ``places`` says how it names paths.

    Args:
        staged: a file that is on its way into ``folder``; the record takes its place together with it.
        files: what was written beside it, by names relative to ``folder``.
        kept: what a message says of the folder where only the record cannot be written.
    """
    asked = plan if isinstance(plan, dict) else asdict(plan)
    near = (folder / RECORD, *places.paths(asked))
    made = results | ({"path": Path(results["path"])} if "path" in results else {})
    told: dict[str, Any] = places.portable({"plan": asked, "versions": versions(), **made}, folder, near)
    entry = told | ({"files": sorted(files)} if files else {})
    if staged is not None:
        entry["made"] = {name: fingerprint(staged.parent / name) for name in _names(staged.parent)}
        atomic.merge(staged.with_name(RECORD), {step: entry})
        return
    with atomic.replacing(folder / RECORD, kept=kept) as own:
        atomic.merge(own, {step: entry})


def _names(folder: Path) -> list[str]:
    """The files in a folder but for its record."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in found if name != RECORD)


ENDS = 1 << 20
"""Bytes of a file's begin, and of its end, that its fingerprint is of: weights lie at the end."""


def fingerprint(path: Path) -> str:
    """What tells whether a file is still the one that was written: a digest of its size, its first and its last MiB."""
    size = path.stat().st_size
    digest = hashlib.blake2b(f"{size} ".encode(), digest_size=16)
    with path.open("rb") as file:
        digest.update(file.read(ENDS))
        file.seek(max(ENDS, size - ENDS))
        digest.update(file.read(ENDS))
    return digest.hexdigest()


def recorded(folder: Path) -> dict[str, Any]:
    """What a folder's onnxfuse.json holds by step; nothing when it is not there or not JSON."""
    return read_json(folder / RECORD)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is none."""
    try:
        return files.read_object(door.linked(path, path.parent)) if path.is_file() else {}
    except ModelError:
        return {}


def versions() -> dict[str, str]:
    """Versions of everything that decides what a model becomes."""
    own = {"python": platform.python_version(), "platform": sys.platform, "machine": platform.machine()}
    return own | versions_of(RECORDED)


def versions_of(names: Iterable[str]) -> dict[str, str]:
    """Those of the packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def plain(value: Any) -> Any:
    """A value as JSON holds it; files that are still being made go by the names that they will have."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(atomic.shown(value)) if isinstance(value, Path) else value

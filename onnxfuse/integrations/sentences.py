"""Exported sentence encoders and cross-encoders as models of sentence-transformers: the same vectors and scores in float32."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse.architecture import OUTPUTS
from onnxfuse.choice import BEST
from onnxfuse.errors import MissingExtraError, ModelError, UsageError
from onnxfuse.exporters.home import Home
from onnxfuse.exporters.module_readers import PROMPTS, read_config
from onnxfuse.io import folders
from onnxfuse.pipeline.arguments import path_of
from onnxfuse.runtime import declared

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

CARRIED = ("prompts", "default_prompt_name", "similarity_fn_name")
"""What a sentence model's settings say that its graph does not."""


def sentence_transformer(
    folder: str | PathLike[str], *, runtime: str | None = None, threads: int | None = None
) -> SentenceTransformer:
    """An exported sentence encoder as a SentenceTransformer, with the checkpoint's prompts and similarity.

    In float32 it gives the same vectors; of a folder the int8 model is opened where there is one, as by ``onnxfuse.load``.

    Args:
        folder: what ``export`` or ``run`` wrote of a sentence model, or an .onnx file in there.
        runtime, threads: as of ``onnxfuse.load``.

    Raises:
        OnnxfuseError: no such model is there, it cannot be opened, or sentence-transformers is not installed.
    """
    (output,) = OUTPUTS["sentence-similarity"]
    path = _model_with(folder, output, "export a sentence model, or with --task sentence-similarity")
    module, place = _module(path, runtime, threads), folders.home_of(path)
    from sentence_transformers import SentenceTransformer

    said = read_config(Home(str(place)), PROMPTS)
    carried = {name: said[name] for name in CARRIED if said.get(name)}
    made: SentenceTransformer = SentenceTransformer(modules=[module], device="cpu", **carried)
    return made


def cross_encoder(folder: str | PathLike[str], *, runtime: str | None = None, threads: int | None = None) -> CrossEncoder:
    """An exported cross-encoder as a CrossEncoder: in float32 the same scores. All else as of ``sentence_transformer``."""
    (output,) = OUTPUTS["text-classification"]
    path = _model_with(folder, output, "export a cross-encoder, or with --task text-classification")
    module, place = _module(path, runtime, threads), folders.home_of(path)
    from sentence_transformers import CrossEncoder

    said = read_config(Home(str(place)), PROMPTS)
    carried = {name: said[name] for name in ("prompts", "default_prompt_name") if said.get(name)}
    made: CrossEncoder = CrossEncoder(modules=[module], device="cpu", activation_fn=_activation(said, place), **carried)
    return made


def _activation(said: Mapping[str, Any], folder: Path) -> Any:
    """What is done to scores, as sentence-transformers saved it; None leaves it to that. Raises ModelError: none of torch's."""
    import torch

    name = said.get("activation_fn")
    if name is None:
        return None
    kind = getattr(torch.nn, str(name).rpartition(".")[2], None)
    if not str(name).startswith("torch.nn.") or not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)):
        raise ModelError(f"{folder / PROMPTS} has {name!r:.80} as activation_fn, wanted a class of torch.nn; correct it")
    return kind()


def _model_with(given: str | PathLike[str], output: str, how: str) -> Path:
    """A file, or the best one of a folder, that has an output. Raises UsageError."""
    place = path_of(given, "the folder")
    if not place.exists():
        raise UsageError(
            f"{place} is no folder and no file; give the folder that holds model.onnx and config.json, or an .onnx file"
        )
    path = folders.source_file(place, *BEST)
    names = [value.name or "" for value in declared(path).graph.outputs]
    if output not in names:
        raise UsageError(f"{path} gives {', '.join(names)}, wanted {output}: {how}")
    return path


def _module(path: Path, runtime: str | None, threads: int | None) -> Any:
    try:
        from onnxfuse.integrations.sentence_module import OptimizedTransformer
    except ImportError as error:
        raise MissingExtraError("a model of sentence-transformers", "sentences") from error
    taken = {"file": path, "runtime": runtime, "threads": threads}
    return OptimizedTransformer.load(str(folders.home_of(path)), init_defaults=taken)

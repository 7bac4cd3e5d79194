"""Exported sentence encoders and cross-encoders as models of sentence-transformers: the same vectors and scores."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxfuse.architecture import OUTPUTS, PIXELS
from onnxfuse.errors import MissingExtraError, ModelError, UsageError
from onnxfuse.exporters.home import Home
from onnxfuse.exporters.module_readers import PROMPTS, read_config
from onnxfuse.io import folders
from onnxfuse.model import BEST
from onnxfuse.runtime import declared

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

CARRIED = ("prompts", "default_prompt_name", "similarity_fn_name")
"""What a sentence model's settings say that its graph does not."""


def sentence_transformer(
    folder: str | PathLike[str], *, runtime: str | None = None, threads: int | None = None
) -> SentenceTransformer:
    """An exported sentence encoder as a SentenceTransformer, with the checkpoint's prompts and similarity: the same vectors.

    Args:
        folder: what ``export`` or ``run`` wrote of a sentence model.
        runtime, threads: as of ``onnxfuse.load``.

    Raises:
        OnnxfuseError: no such model is there, it cannot be opened, or sentence-transformers is not installed.
    """
    (output,) = OUTPUTS["sentence-similarity"]
    place, inputs = _folder_with(Path(folder), output, "export a sentence model, or with --task sentence-similarity")
    module = _module(place, output, output, runtime, threads, "image" if PIXELS in inputs else "text")
    from sentence_transformers import SentenceTransformer

    said = read_config(Home(str(place)), PROMPTS)
    carried = {name: said[name] for name in CARRIED if said.get(name)}
    made: SentenceTransformer = SentenceTransformer(modules=[module], device="cpu", **carried)
    return made


def cross_encoder(folder: str | PathLike[str], *, runtime: str | None = None, threads: int | None = None) -> CrossEncoder:
    """An exported cross-encoder as a CrossEncoder: the same scores. Args and Raises as of ``sentence_transformer``."""
    (output,) = OUTPUTS["text-classification"]
    place, _ = _folder_with(Path(folder), output, "export a cross-encoder, or with --task text-classification")
    module = _module(place, output, "scores", runtime, threads)
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


def _folder_with(folder: Path, output: str, how: str) -> tuple[Path, list[str]]:
    """A folder whose model has an output, and the model's inputs. Raises UsageError."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give the one that holds model.onnx and config.json")
    path = folders.source_file(folder, *BEST)
    graph: ir.Graph = declared(path).graph
    given = [value.name or "" for value in graph.outputs]
    if output not in given:
        raise UsageError(f"{path} gives {', '.join(given)}, wanted {output}: {how}")
    return folder, [value.name or "" for value in graph.inputs]


def _module(folder: Path, output: str, name: str, runtime: str | None, threads: int | None, modality: str = "text") -> Any:
    try:
        from onnxfuse.integrations.sentence_module import OptimizedTransformer
    except ImportError as error:
        raise MissingExtraError("a model of sentence-transformers", "sentences") from error
    taken = {"output": output, "name": name, "runtime": runtime, "threads": threads, "modality": modality}
    return OptimizedTransformer.load(str(folder), init_defaults=taken)

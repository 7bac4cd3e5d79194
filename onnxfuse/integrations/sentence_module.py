"""The modules that an exported model is inside sentence-transformers, which tokenizes and batches as ever."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers
from sentence_transformers.base.modules import Transformer
from transformers.utils.generic import ModelOutput

from onnxfuse import api
from onnxfuse.architecture import IDS, OUTPUTS, PIXELS, PROMPT
from onnxfuse.choice import BEST
from onnxfuse.errors import UsageError
from onnxfuse.integrations.module import Accelerated, Interface
from onnxfuse.io import folders
from onnxfuse.runtime import declared

(EMBEDDING,), (LOGITS,) = OUTPUTS["sentence-similarity"], OUTPUTS["text-classification"]

NAMES = {EMBEDDING: EMBEDDING, LOGITS: "scores"}
"""The outputs of a graph that are taken, and what sentence-transformers calls them."""

GIVEN = frozenset({*NAMES.values(), "token_embeddings", "all_layer_embeddings"})
"""What modules of sentence-transformers give."""


@dataclass
class Outputs(ModelOutput):
    """What an exported sentence encoder [B,D] or cross-encoder [B,labels] gives."""

    sentence_embedding: torch.Tensor | None = None
    token_embeddings: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    logits: torch.Tensor | None = None


class Graph(Accelerated):
    """An exported model, which passes over features that it has no input for."""

    def forward(self, *, prompt_length: int | None = None, **features: Any) -> Any:
        """The outputs of a batch of features, by name. Raises as ``Accelerated.forward``.

        Args:
            prompt_length: tokens of the prompt that all rows have; sentence-transformers tells it to models that name it here.
        """
        known = {name: features[name] for name in self.runtime_model.inputs if name in features}
        if prompt_length is not None and PROMPT in self.runtime_model.inputs:
            known[PROMPT] = torch.full((len(features[IDS]),), prompt_length)
        return super().forward(**known, return_dict=True)

    def __reduce__(self) -> tuple[Callable[..., Graph], tuple[Path, str, int]]:
        """A pickle holds the path of the file, no weights."""
        settings = self.runtime_model.settings
        return open_graph, (self.runtime_model.path.absolute(), settings.runtime, settings.threads)


def open_graph(path: Path, runtime: str | None, threads: int | None) -> Graph:
    """The exported model in a file. Raises as ``onnxfuse.load``."""
    model, folder = api.load(path, runtime=runtime, threads=threads), folders.home_of(path)
    config = transformers.AutoConfig.from_pretrained(folder)
    return Graph(folder, model, Interface("the exported model", model.inputs, Outputs), config)


class Features(dict[str, Any]):
    """What the module gives; UsageError for what the graph does not."""

    def __missing__(self, name: str) -> Any:
        if name not in GIVEN:
            raise KeyError(name)
        raise UsageError(
            f"the exported model gives {', '.join(sorted(self.keys() & GIVEN))}, and {name} is asked for; export it with "
            "--outputs sentence_embedding,token_embeddings, or ask the checkpoint itself"
        )


class OptimizedTransformer(Transformer):
    """The module of sentence-transformers that reads a checkpoint, with an exported model in it: texts or images in.

    Args:
        folder: of the exported model.
        file: the model; the best one of the folder when not given, as where sentence-transformers opens what it saved.
        runtime, threads: as of ``onnxfuse.load``.
        settings: of sentence-transformers' module, as sentence_bert_config.json has them.

    Raises:
        UsageError: the model gives neither embeddings of sentences nor scores.
    """

    def __init__(
        self,
        model_name_or_path: str,
        *,
        file: Path | None = None,
        runtime: str | None = None,
        threads: int | None = None,
        **settings: Any,
    ) -> None:
        path = folders.source_file(Path(model_name_or_path), *BEST) if file is None else file
        graph = declared(path).graph
        given = [value.name for value in graph.outputs]
        output = next((name for name in NAMES if name in given), None)
        if output is None:
            raise UsageError(f"{path} gives {', '.join(map(str, given))}, wanted one of {', '.join(NAMES)}")
        modality = "image" if PIXELS in [value.name for value in graph.inputs] else "text"
        self._opened_with = (path, runtime, threads)
        taken = {modality: {"method": "forward", "method_output_name": output}}
        super().__init__(model_name_or_path, **settings | {"modality_config": taken, "module_output_name": NAMES[output]})

    def _load_model(self, *_: Any, **__: Any) -> Any:
        return open_graph(*self._opened_with)

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """The features with all that the graph gives of them."""
        outputs = self.model(**features | kwargs)
        return Features(features | {NAMES.get(name, name): value for name, value in outputs.items()})

    @cached_property
    def _dimension(self) -> int:
        return int(self.forward(self.preprocess([self._sample()]))[self.module_output_name].shape[-1])

    def _sample(self) -> Any:
        if "image" not in self.modality_config:
            return "a"
        from PIL import Image

        return Image.new("RGB", (8, 8))

    def get_embedding_dimension(self) -> int:
        """The length of an embedding."""
        return self._dimension

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Copy the exported model's files to where sentence-transformers saves, without models that would be opened before it.

        Raises:
            UsageError: the model has a name that is not looked for in a folder.
        """
        graph: Any = self.model
        path: Path = graph.runtime_model.path
        if path.name not in BEST:
            raise UsageError(
                f"{path} would not be found in a folder; call it {folders.MODEL}, in a folder of its own, and save that"
            )
        before = [f"{Path(name).stem}.*" for name in BEST[: BEST.index(path.name)]]
        shutil.copytree(graph.folder, output_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*before))

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
from onnxfuse.architecture import IDS, PROMPT
from onnxfuse.integrations.module import Accelerated, Interface


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
        """A pickle holds the path of the folder, no weights."""
        settings = self.runtime_model.settings
        return open_graph, (self.folder.absolute(), settings.runtime, settings.threads)


def open_graph(folder: Path, runtime: str | None, threads: int | None) -> Graph:
    """The exported model in a folder. Raises as ``onnxfuse.load``."""
    model = api.load(folder, runtime=runtime, threads=threads)
    config = transformers.AutoConfig.from_pretrained(folder)
    return Graph(folder, model, Interface("the exported model", model.inputs, Outputs), config)


class OptimizedTransformer(Transformer):
    """The module of sentence-transformers that reads a checkpoint, with an exported model in it: texts in, ``output`` out.

    Args:
        folder: of the exported model.
        output: the graph's output that is taken; ``name``: what sentence-transformers calls it.
        modality: what it encodes, text or image.
        runtime, threads: as of ``onnxfuse.load``.
        settings: of sentence-transformers' module, as sentence_bert_config.json has them.
    """

    def __init__(
        self,
        model_name_or_path: str,
        *,
        output: str,
        name: str,
        modality: str = "text",
        runtime: str | None = None,
        threads: int | None = None,
        **settings: Any,
    ) -> None:
        self._opened_with = (runtime, threads)
        taken = {modality: {"method": "forward", "method_output_name": output}}
        super().__init__(model_name_or_path, **settings | {"modality_config": taken, "module_output_name": name})

    def _load_model(self, model_name_or_path: str, *_: Any, **__: Any) -> Any:
        return open_graph(Path(model_name_or_path), *self._opened_with)

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
        """Copy the exported model's files to where sentence-transformers saves."""
        shutil.copytree(str(self.model.folder), output_path, dirs_exist_ok=True)

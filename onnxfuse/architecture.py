"""What is known of a model family before its graph is seen. The data itself is in ``models/``, one file per family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from onnxfuse.config import BATCH_SIZE, NUM_CHOICES, SEQUENCE_LENGTH
from onnxfuse.errors import ModelError, UsageError

LAYERS = 100_000
"""More than any model has."""


@dataclass(frozen=True)
class Count:
    """How often a thing occurs: ``layer`` times in each encoder layer, ``once`` besides."""

    layer: int
    once: int = 0

    def total(self, layers: int) -> int:
        return self.layer * layers + self.once


@dataclass(frozen=True)
class Tower:
    """Which part of a whole checkpoint a family is.

    Args:
        whole: the model type of such checkpoints.
        config: the field of config.json that holds the part's own.
        weights: how the names of its weights begin.
        shared: fields of the whole's config that hold over the part's own.
    """

    whole: str
    config: str
    weights: tuple[str, ...]
    shared: tuple[str, ...] = ()


@dataclass(frozen=True)
class Architecture:
    """One model family.

    Args:
        model_type: as in config.json.
        inputs: graph inputs in order, with their dynamic dimensions by axis (names as optimum's).
        needs: of inputs that not every model reads, the config field that must be at least a number for it.
        layers: the config field that holds the number of encoder layers.
        inner_layers: the config field that holds how many layers each of them is; one where the family has no such field.
        tasks: for each task the ``transformers`` auto class, or the class itself where no auto class has it.
        classes: further classes of ``transformers``, and the tasks that they were made for.
        counts: what every export of it holds once fused.
        heads: what a task's head adds to ``counts``.
        outputs: of tasks whose class in this family names its outputs otherwise than ``OUTPUTS``, these names.
        checkpoints: for each hub id that ``--random-weights`` knows, the config fields that differ from the defaults.
        activation: the config field that names the feed-forward's activation function; Gelu where it is absent.
        gated: the config field that is true where the feed-forward has a gate of another function in its place.
        shown_by: inputs that tell the family where there is no config.json; None where they tell nothing (another family has
            the same).
        after_padding: whether positions are counted from the one behind ``pad_token_id``, as RoBERTa's are.
        tower: what it is a part of; None for whole checkpoints.
        keras_hub: its backbone classes in KerasHub; of each, config.json's fields by the names in the class's own config.
        ort_optimizer: what ONNX Runtime's own optimizer calls such models.
    """

    model_type: str
    inputs: Mapping[str, Mapping[int, str]]
    layers: str
    tasks: Mapping[str, str]
    counts: Mapping[str, Count]
    heads: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    outputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    checkpoints: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    activation: str = "hidden_act"
    needs: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    shown_by: frozenset[str] | None = None
    after_padding: bool = False
    tower: Tower | None = None
    classes: Mapping[str, str] = field(default_factory=dict)
    keras_hub: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ort_optimizer: str = "bert"
    inner_layers: str = ""
    gated: str = ""

    def __post_init__(self) -> None:
        """Raises UsageError for a task that no outputs are known of, and for counts that are none."""
        if unknown := [task for task in self.tasks if task not in OUTPUTS]:
            raise UsageError(f"family {self.model_type} has task {unknown[0]!r}, wanted some of {', '.join(OUTPUTS)}")
        if wrong := [name for name, count in self.counts.items() if not isinstance(count, Count)]:
            raise UsageError(
                f"family {self.model_type} counts {wrong[0]} by {self.counts[wrong[0]]!r}, wanted a Count(layer, once)"
            )

    @property
    def name(self) -> str:
        """What it is found by."""
        return self.model_type

    def inputs_of(self, config: Mapping[str, Any], task: str) -> dict[str, Mapping[int, str]]:
        """The inputs that a model with this config.json reads; ``inputs`` without those whose need it does not meet.

        Those of multiple choice have an axis more.
        """
        rank = len(CHOICES) if task == MULTIPLE_CHOICE else len(TOKENS)
        met = {name: axes for name, axes in self.inputs.items() if name not in self.needs or self._met(config, name)}
        return {name: _axes_at(axes, rank) for name, axes in met.items()}

    def _met(self, config: Mapping[str, Any], name: str) -> bool:
        needed, least = self.needs[name]
        size = config.get(needed)
        return type(size) is int and size >= least

    def longest(self, config: Mapping[str, Any]) -> int:
        """The tokens that a model with this config.json has positions for; 0 where it does not say."""
        size, padding = (config.get(name) for name in (POSITION_ROWS, "pad_token_id"))
        if type(size) is not int or not 0 < size < 1 << 31:  # what no tensor could have as a size is none
            return 0
        return size - padding - 1 if self.after_padding and type(padding) is int and 0 <= padding < size - 1 else size

    def outputs_of(self, task: str) -> tuple[str, ...]:
        """The graph outputs of a task in order."""
        return self.outputs.get(task, OUTPUTS[task])

    def name_inputs(self, model: ir.Model, sizes: Mapping[str, int] | None = None) -> None:
        """Name dynamic dimensions of the inputs alike, however an exporter called them: equal names, equal sizes.

        Exporters that see only one sample give the mask's batch a name of its own, as if it could differ from the ids'. A name
        that is replaced in one input is replaced in all inputs and outputs, so that those called by other names keep what they
        share with it.

        Args:
            sizes: numbers for some of the names, which fix those dimensions.

        Raises:
            UsageError: no dynamic dimension has such a name.
        """
        renamed: dict[str, str] = {}
        ranks = [len(value.shape) for value in model.graph.inputs if value.name in self.inputs and value.shape is not None]
        for value in model.graph.inputs:
            names = _axes_at(self.inputs.get(value.name or "", {}), min(ranks, default=0))
            if value.shape is not None:
                renamed |= {
                    dim.value: names[axis]
                    for axis, dim in enumerate(value.shape.dims)
                    if axis in names and isinstance(dim, ir.SymbolicDim) and dim.value
                }
                value.shape = ir.Shape(
                    [
                        ir.SymbolicDim(names[axis]) if axis in names and not isinstance(dim, int) else dim
                        for axis, dim in enumerate(value.shape.dims)
                    ]
                )
        for value in (*model.graph.inputs, *model.graph.outputs):
            if value.shape is not None and not (value.name in self.inputs and value.is_graph_input()):
                value.shape = ir.Shape([_renamed(dim, renamed) for dim in value.shape.dims])
        for name, size in (sizes or {}).items():
            _fix(model, name, size)

    def expected(self, config: Mapping[str, Any], task: str | None) -> dict[str, int]:
        """The count of every fused thing in a model of this family. Raises ModelError: config.json has no number of layers."""
        head = self.heads.get(task, {}) if isinstance(task, str) else {}
        layers = 1
        for field_name in filter(None, (self.layers, self.inner_layers)):
            size = config[field_name] if field_name == self.layers else config.get(field_name, 1)
            if type(size) is not int or not 0 <= size < LAYERS:
                raise ModelError(f"config.json has {size!r:.80} as {field_name}, wanted a number of layers; correct it")
            layers *= size
        return {name: count.total(layers) + head.get(name, 0) for name, count in self.fusable(config).items()}

    def fusable(self, config: Mapping[str, Any]) -> dict[str, Count]:
        """What can be fused in a model with this config.json: an activation other than Gelu is not, and is not missed."""
        gelu = str(config.get(self.activation, "gelu")).startswith("gelu") and not (self.gated and config.get(self.gated))
        return {name: count for name, count in self.counts.items() if gelu or name != "gelu"}


def _axes_at(axes: Mapping[int, str], rank: int) -> Mapping[int, str]:
    """The dynamic dimensions of an input of a rank: tokens of several choices stand in rows of these."""
    return CHOICES if axes == TOKENS and rank == len(CHOICES) else axes


def _renamed(dim: int | ir.SymbolicDim, names: Mapping[str, str]) -> int | ir.SymbolicDim:
    """A dimension under its new name. Another one that has the new name already gets a name apart: they may differ."""
    if isinstance(dim, int) or not dim.value:
        return dim
    if dim.value in names:
        return ir.SymbolicDim(names[dim.value])
    return ir.SymbolicDim(f"{dim.value}_other") if dim.value in names.values() else dim


MASK = "attention_mask"
"""The input that is 0 where a position is padding."""

IDS, TYPES, POSITIONS, PIXELS = "input_ids", "token_type_ids", "position_ids", "pixel_values"
"""What Hugging Face calls the others."""

PROMPT = "prompt_length"
"""The input that holds how many tokens of each row are its prompt, in models whose pooling leaves prompts out; whole numbers [B].
sentence-transformers calls it so."""


def _fix(model: ir.Model, name: str, size: int) -> None:
    """Give the dimension ``name`` of the inputs and outputs a number."""
    found = False
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None and any(str(dim) == name for dim in value.shape.dims):
            found = True
            value.shape = ir.Shape([size if str(dim) == name else dim for dim in value.shape.dims])
    if not found:
        raise UsageError(f"the model has no dynamic {name.replace('_', ' ')} that could be fixed to {size}")


POSITION_ROWS = "max_position_embeddings"
"""The config field that holds the rows of the table of positions."""

TOKENS = {0: BATCH_SIZE, 1: SEQUENCE_LENGTH}
CHOICES = {0: BATCH_SIZE, 1: NUM_CHOICES, 2: SEQUENCE_LENGTH}
IMAGES = {0: BATCH_SIZE}

KERAS_TEXT = {"vocabulary_size": "vocab_size", "max_sequence_length": "max_position_embeddings"}
KERAS_LAYERS = {"num_layers": "num_hidden_layers", "num_heads": "num_attention_heads", "hidden_dim": "hidden_size"}
"""What most of KerasHub's backbones call config.json's fields."""

MULTIPLE_CHOICE = "multiple-choice"
"""The task whose inputs are [batch, choices, sequence]: one logit for each choice."""

TEXT_TASKS = {
    "feature-extraction": "AutoModel",
    "sentence-similarity": "AutoModel",
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    MULTIPLE_CHOICE: "AutoModelForMultipleChoice",
}
IMAGE_TASKS = {
    "feature-extraction": "AutoModel",
    "image-feature-extraction": "AutoModel",
    "image-classification": "AutoModelForImageClassification",
}

OUTPUTS = {
    "feature-extraction": ("last_hidden_state",),
    "sentence-similarity": ("sentence_embedding",),
    "fill-mask": ("logits",),
    "text-classification": ("logits",),
    "token-classification": ("logits",),
    "question-answering": ("start_logits", "end_logits"),
    MULTIPLE_CHOICE: ("logits",),
    "next-sentence-prediction": ("logits",),
    "pre-training": ("prediction_logits", "seq_relationship_logits"),
    "image-feature-extraction": ("last_hidden_state", "pooler_output"),
    "image-classification": ("logits",),
    "zero-shot-image-classification": ("text_embeds",),
}
"""Graph outputs of each task, named as the classes of ``transformers`` and optimum name them."""

MORE_OUTPUTS = {"sentence-similarity": ("token_embeddings", "last_hidden_state")}
"""Outputs that a task has only where they are asked for: they show padding. Both are the encoder's; tools that pool
themselves know the second."""

OPTIONAL_OUTPUTS = {"feature-extraction": ("pooler_output",)}
"""Outputs that some classes of ``transformers`` have beside a task's, shown where they are asked for."""

ALL = "all"
"""Asked for as an output: the task's, and those of ``OPTIONAL_OUTPUTS`` that the checkpoint has weights for."""

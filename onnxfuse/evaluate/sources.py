"""Where the data for a model comes from: a file that the user names, or sentences that every Python has."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import onnx_ir as ir

from onnxfuse import plan as plans
from onnxfuse import samples, storage
from onnxfuse.errors import MissingExtraError
from onnxfuse.evaluate.dataset import Dataset, read
from onnxfuse.evaluate.embeddings import LONGEST, Tokenize, tokenizer
from onnxfuse.evaluate.sentences import calibration_sentences

SENTENCES = 512
"""Enough for outliers to show: with half as many, int8 all-MiniLM-L6-v2 loses a tenth more."""

SAID = f"{SENTENCES} sentences of the standard library"
"""What the default calibration data are called."""

TOKENIZERS = ("tokenizer.json", "vocab.txt")


def dataset_for(path: Path, source: Path, model: ir.Model | None = None) -> Dataset:
    """The data set in ``path`` for the model in the file ``source``, whose tokenizer reads texts.

    Raises:
        UsageError, MissingExtraError: see ``dataset.read``.
    """
    model = model or storage.load(source)
    inputs = {value.name or "": value.dtype.numpy() for value in model.graph.inputs if value.dtype is not None}
    return read(path, inputs, partial(_tokenizer, source, model) if _has_tokenizer(source) else None)


def default_calibration(source: Path, model: ir.Model) -> Dataset | None:
    """Sentences of the standard library for a model with a tokenizer beside it that can be opened; else None."""
    if not _has_tokenizer(source):
        return None
    try:
        tokenize = _tokenizer(source, model)
    except MissingExtraError:
        return None
    feeds = tokenize(calibration_sentences(SENTENCES))
    wanted = {value.name for value in model.graph.inputs}
    if not wanted <= set(feeds):
        return None
    return Dataset(SAID, {name: array for name, array in feeds.items() if name in wanted})


def _has_tokenizer(source: Path) -> bool:
    return any((source.parent / name).is_file() for name in TOKENIZERS)


def _tokenizer(source: Path, model: ir.Model) -> Tokenize:
    return tokenizer(source.parent, min(LONGEST, samples.profile_of(model, plans.read_config(source)).longest))

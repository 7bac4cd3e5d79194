"""Where the data for a model comes from: a file that the user names, or sentences that every Python has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse.architecture import IDS, MASK
from onnxfuse.errors import MissingExtraError, ModelError, UncalibratedError
from onnxfuse.evaluation.collate import Collator, Sizes
from onnxfuse.evaluation.dataset import Dataset, read, tokenized
from onnxfuse.evaluation.sentences import calibration_sentences
from onnxfuse.evaluation.text import LONGEST, Tokenizer, has_tokenizer, tokenizer
from onnxfuse.io import folders
from onnxfuse.runtime import Runner, declared, open_runner
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.meaning import understood
from onnxfuse.verify.profile import Profile

SENTENCES = 512
"""Enough for outliers to show: with half as many, int8 all-MiniLM-L6-v2 loses a tenth more."""

DEFAULT_DATA = f"{SENTENCES} sentences of the standard library"
"""What the default calibration data are called."""

ADVICE = "; give --calibration DATA to onnxfuse quantize"
"""The next step where there are none."""


def dataset_for(path: Path, source: Path, model: ir.Model | None = None) -> Dataset:
    """The data set in ``path`` for the model in the file ``source``, whose tokenizer reads texts.

    Raises:
        UsageError, MissingExtraError, ModelError: see ``dataset.read`` and ``text.tokenizer``.
    """
    collator = collator_of(source, model or declared(source))
    return read(path, [collator], _opener([source], [collator]))[0]


def datasets_for(path: Path, sources: Sequence[Path]) -> list[Dataset]:
    """The same samples for each of several models, in batches that all of them take. Other files take what the first ONNX file
    takes.

    Raises:
        UsageError, MissingExtraError: see ``dataset_for``.
        ModelError: so too, or they take no common sizes.
    """
    graphs = [source for source in sources if source.suffix == ".onnx"] or sources[:1]
    known = {source: collator_of(source, declared(source)) for source in graphs}
    sizes = Sizes.common(list(known.values()))
    collators = [known.get(source, known[graphs[0]]) for source in sources]
    return [replace(data, sizes=sizes) for data in read(path, collators, _opener(sources, collators))]


def default_calibration(source: Path, model: ir.Model) -> Dataset:
    """Sentences of the standard library, for a model with a tokenizer beside it that can be opened.

    Raises:
        UncalibratedError: there is none, or it does not fit the model; the text says why.
    """
    if missing := usual_collator(source, model).missing((IDS, MASK)):
        raise UncalibratedError(f"sentences do not give its {', '.join(missing)}{ADVICE}")
    if not has_tokenizer(folders.home_of(source)):
        raise UncalibratedError(f"no tokenizer lies beside the model{ADVICE}")
    collator = collator_of(source, model)
    try:
        tokenize = _tokenizer([source], [collator])
        return tokenized(DEFAULT_DATA, calibration_sentences(SENTENCES), [collator], tokenize)[0]
    except (MissingExtraError, ModelError) as error:
        raise UncalibratedError(str(error)) from error


def collator_of(source: Path, model: ir.Model, run: Runner | None = None) -> Collator:
    """What the model in the file ``source`` takes, its masks as it means them; ``run``: where it is open. Raises ModelError."""
    collator = usual_collator(source, model)
    if not any(value.role == "mask" for value in collator.profile.inputs):
        return collator
    return replace(collator, profile=understood(collator.profile, run or open_runner(source)))


def usual_collator(source: Path, model: ir.Model) -> Collator:
    """The same, of masks what is usual."""
    config = folders.read_config(source)
    profile = profile_of(model, config)
    return Collator(profile, str(source), _padding(profile, config), _first_position(config, source))


def _padding(profile: Profile, config: Mapping[str, Any]) -> int:
    """The id that stands where no token is: what the graph asks for, or config.json says; else 0."""
    asked = [value.pad for value in profile.inputs if value.pad is not None]
    configured = config.get("pad_token_id")
    rows = max((value.high for value in profile.inputs if value.role == "ids"), default=0)
    return asked[0] if asked else configured if isinstance(configured, int) and 0 <= configured < rows else 0


def _first_position(config: Mapping[str, Any], source: Path) -> int:
    """Where position_ids begin: behind the id of padding in RoBERTa and what is counted like it, else at 0.

    Its tables have as many rows more than its tokenizer takes tokens.
    """
    padding, rows = config.get("pad_token_id"), config.get("max_position_embeddings")
    if not isinstance(padding, int) or not isinstance(rows, int):
        return 0
    longest = folders.read_json(folders.home_of(source) / "tokenizer_config.json").get("model_max_length")
    counted = "roberta" in str(config.get("model_type")) or longest == rows - padding - 1
    return padding + 1 if counted else 0


def _opener(sources: Sequence[Path], collators: Sequence[Collator]) -> Callable[[], Tokenizer] | None:
    """Opens the tokenizer of the first model that has one; None where none has."""
    found = [source for source in sources if has_tokenizer(folders.home_of(source))]
    return partial(_tokenizer, found, collators) if found else None


def _tokenizer(sources: Sequence[Path], collators: Sequence[Collator]) -> Tokenizer:
    """The first one's tokenizer, for texts that all models take whole."""
    lengths = [collator.sizes.length for collator in collators if collator.sizes.length is not None]
    return tokenizer(folders.home_of(sources[0]), min([LONGEST, *lengths, *(collator.longest for collator in collators)]))

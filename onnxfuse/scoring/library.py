"""Data sets that the ``datasets`` library streams: files and folders that it saved, and those of the hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onnxfuse.errors import MissingExtraError, UsageError
from onnxfuse.evaluation.columns import INFO
from onnxfuse.io import door, hub
from onnxfuse.io.quiet import quiet
from onnxfuse.scoring.source import SAVE, Row, Source


def packed(path: Path) -> Source:
    def load(library: Any) -> Any:
        return library.load_dataset(path.suffix[1:], data_files=str(path), split="train", streaming=True)

    return _loaded(str(path), load)


def saved(path: Path) -> Source:
    for named in (INFO, "state.json", *(part.name for part in path.glob("*.arrow"))):
        door.within(path / named, path, UsageError)
    return _loaded(str(path), lambda library: library.load_from_disk(str(path)).to_iterable_dataset())


def of_hub(data: str, split: str) -> Source:
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?(:[\w.-]+)?", data):
        raise UsageError(f"{data} is not there; give a file, a folder, or a data set of the hub (OWNER/NAME:CONFIGURATION)")
    if why := hub.unreachable():
        raise UsageError(f"{data} is not there, and the hub cannot be asked for it ({why}); give a file or a folder")
    name, _, config = data.partition(":")

    def load(library: Any) -> Any:
        splits = library.get_dataset_split_names(name, config or None)
        if split and split not in splits:
            raise UsageError(f"{data} has no split {split!r}; choose one of {', '.join(splits)}")
        labelled = next((each for each in LABELLED if each in splits), splits[-1])
        return library.load_dataset(name, config or None, split=split or labelled, streaming=True)

    return _loaded(data, load)


def _loaded(data: str, load: Callable[[Any], Any]) -> Source:
    """A data set that the ``datasets`` library streams. Raises MissingExtraError, UsageError."""
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(f"reading {data}", "eval") from error
    with door.reading(data, "a data set", UsageError, SAVE), quiet(), _hushed(datasets):
        found = load(datasets)
        features = found.features or found._resolve_features().features
        kinds = {name: getattr(kind, "feature", kind) for name, kind in features.items()}  # of a list, what it is of
        classes = {name: tuple(kind.names) for name, kind in kinds.items() if hasattr(kind, "names")}
        known = [part.num_examples for part in (found.info.splits or {}).values()] if found.info.splits else []

    def rows() -> Iterator[Row]:
        with door.reading(data, "a data set", UsageError, SAVE), _hushed(datasets):
            yield from found

    return Source(data, tuple(features), rows, known[0] if len(known) == 1 and known[0] else None, classes)


@contextmanager
def _hushed(datasets: Any) -> Iterator[None]:
    """What fails comes as an exception, and is not logged as an error before."""
    before = datasets.logging.get_verbosity()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(before)


LABELLED = ("validation", "validation_matched", "test")
"""Splits of data sets on the hub; those that GLUE calls test have no labels."""

"""What a job began with, input and model, and whether that is what its rows are read of and its answers are made by."""

from __future__ import annotations

import hashlib
from pathlib import Path

from onnxfuse.bulk.data import Data
from onnxfuse.bulk.job import Job
from onnxfuse.errors import UsageError
from onnxfuse.io import external, folders, onnx_file


def require_input(job: Job, data: Data) -> None:
    """Raises UsageError: rows were read of other files than those the job began with. StorageError: one is gone."""
    if data.stamp() != job.facts["input"]:
        raise UsageError(
            f"{job.data.name} changed while it was read: names, sizes or times of its files; choose a new folder with --output, "
            "once nobody writes to them"
        )


def require_model(job: Job, path: Path, home: Path) -> None:
    """Raises UsageError: a session, which is open, may be of another model than the job began with."""
    found, known = digests(path, home), job.facts["model"]
    if odd := [name for name in {**known, **found} if known.get(name) != found.get(name)]:
        raise UsageError(
            f"{job.plan.source} changed since the run began: {odd[0]} is not the same; put that back and run the same command "
            "again, or choose a new folder with --output"
        )


def digests(path: Path, home: Path) -> dict[str, str]:
    """Digests of a model's files, and of what lies beside it and says how it is used."""
    named = {path, *path.parent.glob(f"{path.stem}.*")}
    if path.suffix == ".onnx":
        named |= external.weight_files(onnx_file.load(path))
    named |= {path for path in home.glob("*.json") if path.name != folders.RECORD}
    return {path.name: _digest(path) for path in sorted(named, key=lambda path: path.name)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]

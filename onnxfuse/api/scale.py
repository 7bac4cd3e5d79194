"""The verb for many rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnxfuse.bulk.job import PART, TOKENS, MapConfig
from onnxfuse.config import names
from onnxfuse.io.progress import Progress, require_callable, silent
from onnxfuse.pipeline import map as mapping
from onnxfuse.pipeline.arguments import Source, path_of


def map(
    model: Source,
    input: Source,
    output: Source,
    *,
    columns: Sequence[str] = (),
    id: str = "",
    keep: Sequence[str] = (),
    batch_tokens: int = TOKENS,
    part_rows: int = PART,
    threads: int = 0,
    runtime: str | None = None,
    prompt_name: str | None = None,
    max_bad: int | float = 0,
    engine: str = "local",
    address: str = "",
    actors: int = 0,
    progress: Progress = silent,
) -> mapping.Mapped:
    """Run a model on any number of texts or images, each exactly once, and write the answers as .parquet files into a folder.

    Stopped anywhere and called again, it goes on; the files are then those of one run, byte for byte.

    Args:
        model: a file or folder, opened as ``load`` does.
        input: a .parquet, .jsonl, .csv, .tsv or .txt file, a folder of these or of images, or a pattern of such names.
        columns: those of the texts (of a pair two); the model's usual one when there are none.
        id, keep: the column that tells rows apart, instead of their numbers; and those that are written beside the answers.
        batch_tokens: of a batch at most, padding included.
        part_rows: rows of a file.
        threads: of a session; 0 takes all cores.
        max_bad: rows without an answer that may be: a whole number, or a share of all as a fraction.
        engine, address, actors: "local", or "ray" with the address of a cluster and how many sessions there are.

    Raises:
        BadRowsError: more rows are bad; the answers to all others are written.
        OnnxfuseError: see ``pipeline.map.map_rows``.
    """
    require_callable(progress)
    given: Any = path_of(input, "input")
    plan = MapConfig(
        path_of(model), str(given), path_of(output, "output"), names(columns, "columns"), id, names(keep, "keep"),
        batch_tokens, part_rows, threads, runtime, prompt_name, max_bad, engine, address, actors,
    )  # fmt: skip
    return mapping.map_rows(plan, progress).require(max_bad)

"""The verb for many rows: map."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxfuse.bulk.job import PART, TOKENS, MapConfig
from onnxfuse.cli import options
from onnxfuse.cli.console import error_json, progress, show
from onnxfuse.errors import BadRowsError

if TYPE_CHECKING:
    from onnxfuse.pipeline.map import Mapped


@options.examples(
    "onnxfuse map onnx/minilm --input texts.jsonl --output vectors",
    "onnxfuse map onnx/mine --input 'logs/*.csv' --column message --id key --output labels --max-bad 1%",
    "onnxfuse map onnx/vit --input photos --output labels --engine ray --actors 4",
)
def map(
    model: options.Mapping,
    data: options.Input,
    output: options.Parts,
    column: options.Columns = None,
    id: options.IdColumn = "",
    keep: options.Keep = None,
    batch_tokens: options.BatchTokens = TOKENS,
    part_rows: options.PartRows = PART,
    threads: options.Threads = 0,
    runtime: options.MapRuntime = None,
    prompt_name: options.PromptName = None,
    max_bad: options.MaxBad = "0",
    engine: options.EngineName = "local",
    address: options.Address = "",
    actors: options.Actors = 0,
    as_json: options.Json = False,
) -> None:
    """Run a model on any number of texts or images, each exactly once, and write the answers as .parquet files."""
    from onnxfuse.pipeline.map import map_rows

    limit = options.number_or_share(max_bad, "--max-bad")
    names = (tuple(column or ()), id, tuple(keep or ()))
    plan = MapConfig(
        model, data, output, *names, batch_tokens, part_rows, threads, runtime, prompt_name, limit, engine, address, actors
    )
    with progress() as tell:
        made = map_rows(plan, tell)
    failed = None
    try:
        made.require(limit)
    except BadRowsError as error:
        failed = error
    wrong = {} if failed is None else {"error": error_json("BadRowsError", str(failed), failed.exit_code)}
    show(as_json, made.to_json() | wrong, *_lines(made))
    if failed is not None:
        raise failed


def _lines(made: Mapped) -> list[str]:
    """What came out, for people."""
    parts = "1 part" if made.parts == 1 else f"{made.parts:,} parts"
    lines = [f"{made.path}: {made.rows:,} rows in {parts}"]
    if made.before:
        lines.append(f"  {made.before:,} of them were there")
    if made.made and made.seconds:
        speeds = [f"{made.made / made.seconds:,.0f} rows a second"]
        speeds += [f"{made.tokens / made.seconds:,.0f} tokens a second"] if made.tokens else []
        share = min(1.0, made.tokenizing / made.seconds)
        lines.append(f"  {', '.join(speeds)}; reading and tokenizing beside it took {share:.0%} of the {made.seconds:,.1f} s")
    if made.bad:
        files = ", ".join(str(path) for path in made.bad_files[:3]) + (", ..." if len(made.bad_files) > 3 else "")
        lines.append(f"  {made.bad:,} bad {'row' if made.bad == 1 else 'rows'}: {files}")
    return lines

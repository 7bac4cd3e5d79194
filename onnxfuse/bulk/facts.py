"""What decides the result of a job: the model, the rows, the options, the versions."""

from __future__ import annotations

from onnxfuse.bulk.data import Data
from onnxfuse.bulk.job import ID, Job, MapConfig
from onnxfuse.bulk.kinds import is_cut
from onnxfuse.bulk.rows import PATH
from onnxfuse.bulk.unchanged import digests
from onnxfuse.bulk.use import Use
from onnxfuse.bulk.uses import front_of, use_of
from onnxfuse.bulk.work import choice_of, serving_of
from onnxfuse.errors import UsageError
from onnxfuse.inference.serving import Serving
from onnxfuse.io import folders
from onnxfuse.runtime import open_runner

VERSIONS = ("onnxfuse", "onnxruntime", "openvino", "tokenizers", "pillow", "pyarrow", "numpy")
"""Packages whose other versions may give other answers, or other bytes."""


def job_of(plan: MapConfig, data: Data) -> Job:
    """A plan whose columns are known, and what decides its result. Raises UsageError, ModelError."""
    chosen, _ = choice_of(plan.source, plan.threads, plan.runtime)
    serving = serving_of(chosen, lambda feeds: open_runner(chosen.path, chosen.settings)(feeds))
    use = use_of(serving)
    columns = _columns(plan, data, use, serving)
    front = front_of(use, serving, plan.prompt_name)
    facts = {
        "model": digests(chosen.path, serving.home),
        "settings": str(chosen.settings),
        "input": data.stamp(),
        "columns": list(columns),
        "id": plan.id,
        "keep": list(plan.keep),
        "prompt_name": plan.prompt_name,
        "batch_tokens": plan.batch_tokens,
        "part_rows": plan.part_rows,
        "versions": folders.versions_of(VERSIONS),
    }
    return Job(plan, data, columns, front, facts)


def _columns(plan: MapConfig, data: Data, use: Use, serving: Serving) -> tuple[str, ...]:
    """The columns that hold the model's inputs. Raises UsageError."""
    if serving.sees != data.pictures:
        takes, given = ("images", "none") if serving.sees else ("texts", "images")
        raise UsageError(f"{serving.path} takes {takes}, and {data.name} holds {given}; give it {takes}")
    columns, there = plan.columns or ((PATH,) if serving.sees else use.columns), data.columns
    if not plan.columns and len(use.columns) == len(there) == 1:
        columns = there
    for option, names in (("column", columns), ("id", (plan.id,) if plan.id else ()), ("keep", plan.keep)):
        if missing := [name for name in names if name not in there and not data.holds(name)]:
            among = (
                f"choose with --{option} among {', '.join(there[:20])}" if there else "it names none; see that it is not empty"
            )
            raise UsageError(f"{data.name} has no column {missing[0]!r:.60}; {among}")
    if not len(use.columns) <= len(columns) <= use.most or len(set(columns)) < len(columns):
        wanted = " or ".join(map(str, range(len(use.columns), use.most + 1)))
        raise UsageError(f"--column {', '.join(columns)}: {use.what} takes {wanted} different ones")
    if odd := [name for name in (plan.id, *plan.keep) if is_cut(data.types.get(name))]:
        kind = data.types[odd[0]]
        raise UsageError(f"{data.name}: column {odd[0]} is {kind}, whose nanoseconds Python has not; write it with microseconds")
    taken = {ID, *use.answers}
    if odd := [name for name in plan.keep if name in taken or plan.keep.count(name) > 1]:
        raise UsageError(f"--keep {odd[0]}: the result has a column of that name already; leave it out, or call it otherwise")
    return tuple(columns)

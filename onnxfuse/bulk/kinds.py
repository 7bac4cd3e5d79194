"""The types of columns that are kept: what is written of them is what was read."""

from __future__ import annotations

from typing import Any

from onnxfuse.bulk.data import Part
from onnxfuse.bulk.job import Job
from onnxfuse.bulk.parts import library
from onnxfuse.errors import UsageError


def require_types(job: Job, part: Part) -> None:
    """What is kept of rows is written as it is: its type is that of the first file, which the result has.

    Raises:
        UsageError: a file of the part has another.
    """
    data = job.data
    for name in dict.fromkeys((job.plan.id, *job.plan.keep)):
        if (kind := data.types.get(name)) is None:  # no column's, or a text's
            continue
        for path in data.files[part.begin.file : part.end.file + 1]:
            found = data.format.types(path).get(name, kind)
            if not _alike(found, kind):
                raise UsageError(f"{path}: column {name} is {found}, and {kind} in {data.files[0]}; write both with one type")


def _alike(first: Any, second: Any) -> bool:
    """Whether two types hold the same values: texts however they are stored, and lists of such, whatever their items' name."""
    if first == second:
        return True
    kinds = library().types
    texts = (kinds.is_string, kinds.is_large_string, kinds.is_string_view)
    if all(any(is_text(_plain(each)) for is_text in texts) for each in (first, second)):
        return True
    lists = (kinds.is_list, kinds.is_large_list)
    if all(any(is_list(each) for is_list in lists) for each in (first, second)):
        return _alike(first.value_type, second.value_type)
    return bool(_plain(first) == _plain(second))


def _plain(kind: Any) -> Any:
    """What a dictionary's values are of; else the type itself."""
    return kind.value_type if library().types.is_dictionary(kind) else kind


def is_cut(kind: Any) -> bool:
    """Whether Python's values of a type lack something, which is not told: times of a day in nanoseconds, alone or in others."""
    if kind is None:
        return False
    inside = getattr(kind, "value_type", None)  # of a list, a map or a dictionary
    fields = [kind.field(at).type for at in range(kind.num_fields)]
    return str(kind) == "time64[ns]" or any(map(is_cut, (inside, *fields)))

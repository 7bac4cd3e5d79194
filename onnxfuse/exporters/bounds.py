"""The sizes that a checkpoint's config.json asks for, held against its weights before anything of these sizes is made."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from onnxfuse.errors import ExportError
from onnxfuse.exporters.loaded import Arrays

if TYPE_CHECKING:
    from onnxfuse.exporters.description import Description

ENTRIES = 1 << 16
"""In all lists and objects of a config.json: ImageNet has 21843 classes, each named twice. ``transformers`` takes longer for each
the more there are."""

ROOM = 1 << 16
"""A size up to which a field may be anything: positions that are computed, classes of a head that is not stored."""

SPARE = 1 << 28
"""Bytes that a model may have beyond twice its checkpoint's: heads that are not stored."""


def require_few(fields: Mapping[str, Any], where: str) -> None:
    """Refuse a config.json that ``transformers`` would take minutes to read. Raises ExportError."""
    level: list[Any] = [fields]
    count = 0
    while level:
        count += sum(map(len, level))
        parts = (part for each in level for part in (each.values() if isinstance(each, Mapping) else each))
        level = [part for part in parts if isinstance(part, list | Mapping)]
    if count > ENTRIES:
        longest = max(fields, key=lambda name: len(fields[name]) if isinstance(fields[name], list | Mapping) else 0)
        raise ExportError(f"{where}: config.json has {count} entries, most in {longest}, at most {ENTRIES} are read; correct it")


def require_bounded(description: Description, stored: Arrays) -> None:
    """Refuse a config.json whose numbers no such checkpoint can have: ``transformers`` would make a model of them first.

    A field whose default is no whole number (the base of rotary positions) is no size.

    Raises:
        ExportError: a field is larger than every axis of every weight, a size is negative, or there are more layers than weights.
    """
    largest = max([ROOM, *(size for array in stored.values() for size in array.shape)])
    known = type(description.config)().to_dict()
    for name, value in description.config.to_dict().items():
        if is_size(name, known.get(name)) and any(number < 0 for number in _numbers(value)):
            raise ExportError(f"{description.home}: config.json has {value!r} as {name}, wanted 1 or more; correct it")
        if name in known and not isinstance(known[name], float) and any(number > largest for number in _numbers(value)):
            raise ExportError(
                f"{description.home}: config.json has {value!r} as {name}, and no axis of its weights is longer than "
                f"{largest}; correct it"
            )
    field = description.family.layers
    layers = next(_numbers(getattr(description.config, field, 0)), 0)
    if layers > max(len(stored), 1):
        raise ExportError(
            f"{description.home}: config.json has {layers} as {field}, and there are {len(stored)} weights; correct it"
        )


def require_room(description: Description, stored: Arrays, kind: Any) -> None:
    """Refuse to make a PyTorch model that is far larger than its checkpoint. Raises ExportError."""
    import torch

    with torch.device("meta"):
        model = kind._from_config(copy.deepcopy(description.config), attn_implementation="eager", dtype=torch.float32)
    wanted = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    held = sum(array.nbytes for array in stored.values())
    if wanted > 2 * held + SPARE:
        raise ExportError(
            f"{description.home}: a {kind.__name__} of the sizes in config.json takes {wanted >> 20} MiB, its weights have "
            f"{held >> 20}; correct it"
        )


def is_size(name: str, usual: Any) -> bool:
    """Whether a field of config.json is a size or a count, by the number that it usually has; ids may be any."""
    return isinstance(usual, int) and not isinstance(usual, bool) and usual > 0 and not name.endswith("_id")


def _numbers(value: Any) -> Iterator[int]:
    """The whole numbers of a field: itself, or those in a list."""
    for each in value if isinstance(value, list | tuple) else [value]:
        if isinstance(each, int) and not isinstance(each, bool):
            yield each

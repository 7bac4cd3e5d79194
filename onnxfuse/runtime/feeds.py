"""What people give a model, as what a runtime takes: arrays by name, each in its input's type and sizes.

    feeds_for(inputs_of(graph.inputs), [[101, 7592, 102]], attention_mask=[[1, 1, 1]])

Numbers are cast where that keeps their kind and their value's range: float64 to float32, int32 or lists to int64, whole numbers
and truth values to floats. What would lose something (a fraction for whole numbers, 300 for a uint8) is refused, and so are other
sizes than the model declares: a dimension of one name has one size in all inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.architecture import IDS, PROMPT, TYPES
from onnxfuse.errors import UsageError, first_line
from onnxfuse.runtime.api import Feeds

ORDER = "bif"
"""Kinds of numbers, each of which those behind it can hold: truth values, whole numbers, floats."""

TEXT = "OSU"
"""Kinds of texts."""

BESIDE = frozenset(
    {
        "token_type_ids",
        "position_ids",
        "special_tokens_mask",
        "offset_mapping",
        "overflow_to_sample_mapping",
        "length",
        "pixel_mask",
        "labels",
        PROMPT,
    }
)
"""What tokenizers and image processors of transformers give beside what a model takes: passed over where it does not."""


WORDS = frozenset({IDS, TYPES})
"""Inputs that are looked up in tables."""


@dataclass(frozen=True)
class Input:
    """What a model declares of an input. ``sizes``: of each dimension a number, a name, or None; None for no word of them."""

    dtype: np.dtype
    sizes: tuple[int | str | None, ...] | None = None

    def __str__(self) -> str:
        return f"[{', '.join('any' if size is None else str(size) for size in self.sizes or ())}]"


def inputs_of(inputs: Iterable[ir.Value]) -> dict[str, Input]:
    """What a graph declares of each of its inputs by name, in order, without those that are weights."""
    return {
        value.name or "": Input(value.dtype.numpy(), _sizes(value))
        for value in inputs
        if value.const_value is None and value.dtype not in (None, ir.DataType.UNDEFINED)
    }


def _sizes(value: ir.Value) -> tuple[int | str | None, ...] | None:
    return None if value.shape is None else tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def feeds_for(inputs: Mapping[str, Input], *args: Any, **kwargs: Any) -> Feeds:
    """Feeds of a model by name, from arrays or nested lists by position or by name.

    Args:
        inputs: the model's, by name, in its order: see ``inputs_of``.
        kwargs: what is in ``BESIDE`` is passed over where the model has no such input. ``PROMPT`` may be one number for all
            rows, as sentence-transformers gives it, and is 0 where it is not given.

    Returns:
        One array for each of ``inputs``, in their order and types.

    Raises:
        UsageError: an input is missing, unknown or given twice, or an array is of another kind or other sizes than its input.
    """
    names = list(inputs)
    if len(args) > len(names):
        raise UsageError(f"{len(args)} inputs are given, the model takes {len(names)}: {', '.join(names)}")
    given = dict(zip(names, args, strict=False))
    if twice := [name for name in given if name in kwargs]:
        raise UsageError(f"input {twice[0]} is given twice, by position and by name")
    if unknown := [name for name in kwargs if name not in inputs and name not in BESIDE]:
        raise UsageError(f"the model has no input {', '.join(unknown)}; it takes {', '.join(names)}")
    given |= kwargs
    if missing := [name for name in names if name not in given and name != PROMPT]:
        zeros = "; zeros do for token_type_ids" if "token_type_ids" in missing else ""
        raise UsageError(f"the model needs {', '.join(missing)}; got {', '.join(given) or 'nothing'}{zeros}")
    feeds = {name: _cast(name, given.get(name, 0), inputs[name].dtype) for name in names}
    rows = next((len(array) for name, array in feeds.items() if name != PROMPT and array.ndim), 1)
    if PROMPT in feeds and not feeds[PROMPT].ndim:
        feeds[PROMPT] = np.full(rows, feeds[PROMPT])
    _require_sizes(inputs, feeds)
    for name in WORDS & feeds.keys():
        if feeds[name].size and (least := feeds[name].min()) < 0:  # which graphs count from a table's end
            raise UsageError(f"input {name} holds {least}, wanted 0 or more: the number of a token, or of a segment")
    return feeds


def _require_sizes(inputs: Mapping[str, Input], feeds: Feeds) -> None:
    """Raises UsageError when an array has other sizes than its input declares, or than another input has under the same name."""
    named: dict[str, str] = {}
    for name, wanted in inputs.items():
        shape, sizes = feeds[name].shape, wanted.sizes
        if sizes is None:
            continue
        fixed = len(shape) == len(sizes) and all(
            seen == size for seen, size in zip(shape, sizes, strict=True) if isinstance(size, int)
        )
        if not fixed:
            raise UsageError(f"input {name} has shape {list(shape)}, wanted {wanted}")
        if 0 in shape and 0 not in sizes:  # what models make of nothing differs from one to the next
            raise UsageError(f"input {name} has shape {list(shape)}, which holds nothing; give at least one of each")
        for seen, size in zip(shape, sizes, strict=True):
            first = named.setdefault(size, name) if isinstance(size, str) else name
            if first != name and seen != feeds[first].shape[inputs[first].sizes.index(size)]:  # type: ignore[union-attr]
                raise UsageError(
                    f"input {name} has shape {list(shape)} and {first} {list(feeds[first].shape)}: {size} must be one number"
                )


def _cast(name: str, given: Any, wanted: np.dtype) -> np.ndarray:
    """An array of the input's type. Raises UsageError."""
    try:
        array = np.asarray(given)
    except RuntimeError as error:  # a torch tensor that needs gradients, say
        raise UsageError(f"input {name} cannot be read as an array: {first_line(error)}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"input {name} cannot be read as an array ({first_line(error)}); rows must be of one length") from error
    if array.dtype == wanted:
        return array
    if wanted.kind in TEXT and array.dtype.kind in TEXT:
        return array.astype(wanted)
    if array.size and not _holds(wanted, array.dtype):
        raise UsageError(f"input {name} is {array.dtype}, wanted {wanted}; give it in that type")
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    if array.size and not _fits(array, cast):
        raise UsageError(f"input {name} has numbers from {array.min()} to {array.max()}, and {wanted} cannot hold them all")
    return cast


def _kind(dtype: np.dtype) -> str:
    """The kind of its numbers: signed and unsigned are one, bfloat16 and its kin, which NumPy takes for bytes, floats."""
    return "f" if dtype.kind == "V" and "float" in dtype.name else dtype.kind.replace("u", "i")


def _holds(wanted: np.dtype, seen: np.dtype) -> bool:
    """Whether numbers of the kind ``seen`` are also of the kind ``wanted``."""
    return -1 < ORDER.find(_kind(seen)) <= ORDER.find(_kind(wanted))


def _fits(array: np.ndarray, cast: np.ndarray) -> bool:
    """Whether all whole numbers lie in the range of their new type, and all that was finite still is."""
    if _kind(cast.dtype) == "i":
        limits = np.iinfo(cast.dtype)
        return bool(limits.min <= array.min() and array.max() <= limits.max)
    return bool((np.isfinite(cast.astype(np.float64)) | ~np.isfinite(array.astype(np.float64))).all())

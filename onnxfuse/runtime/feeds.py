"""What people give a model, as what a runtime takes: arrays by name, each in its input's type.

    feeds_for({"input_ids": int64, "attention_mask": int64}, [[101, 7592, 102]], attention_mask=[[1, 1, 1]])

Numbers are cast where that keeps their kind and their value's range: float64 to float32, int32 or lists to int64, whole numbers
and truth values to floats. What would lose something (a fraction for whole numbers, 300 for a uint8) is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.errors import UsageError, first_line
from onnxfuse.runtime.api import Feeds

ORDER = "bif"
"""Kinds of numbers, each of which those behind it can hold: truth values, whole numbers, floats."""

TEXT = "OSU"
"""Kinds of texts."""


def input_types(inputs: Iterable[ir.Value]) -> dict[str, np.dtype]:
    """The type of each of a graph's inputs by name, in order, without those that are weights."""
    return {value.name or "": value.dtype.numpy() for value in inputs if value.const_value is None and value.dtype is not None}


def feeds_for(inputs: Mapping[str, np.dtype], *args: Any, **kwargs: Any) -> Feeds:
    """Feeds of a model by name, from arrays or nested lists by position or by name.

    Args:
        inputs: the type of each of the model's inputs, by name, in the model's order: see ``input_types``.

    Returns:
        One array for each of ``inputs``, in their order and types.

    Raises:
        UsageError: an input is missing, unknown or given twice, or an array is of another kind than its input.
    """
    names = list(inputs)
    if len(args) > len(names):
        raise UsageError(f"{len(args)} inputs are given, the model takes {len(names)}: {', '.join(names)}")
    given = dict(zip(names, args, strict=False))
    if twice := [name for name in given if name in kwargs]:
        raise UsageError(f"input {twice[0]} is given twice, by position and by name")
    if unknown := [name for name in kwargs if name not in inputs]:
        raise UsageError(f"the model has no input {', '.join(unknown)}; it takes {', '.join(names)}")
    given |= kwargs
    if missing := [name for name in names if name not in given]:
        raise UsageError(f"the model needs {', '.join(missing)}; got {', '.join(given) or 'nothing'}")
    return {name: _cast(name, given[name], np.dtype(inputs[name])) for name in names}


def _cast(name: str, given: Any, wanted: np.dtype) -> np.ndarray:
    """An array of the input's type. Raises UsageError."""
    try:
        array = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:  # RuntimeError: a torch tensor that needs gradients
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

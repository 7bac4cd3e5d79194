"""The operators that ONNX Runtime has, by its own word: their opsets, types and kernels for the CPU."""

from __future__ import annotations

import functools
from collections import defaultdict
from typing import Any

import onnx
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

OPEN = 2**31 - 1
"""The end of a kernel's range of opsets that has none; such a kernel counts for the opset of its start alone."""


@functools.cache
def _schemas() -> dict[tuple[str, str], list[Any]]:
    """All schemas of each operator, by domain and name."""
    found: dict[tuple[str, str], list[Any]] = defaultdict(list)
    for schema in runtime.get_all_operator_schema():
        found[schema.domain, schema.name].append(schema)
    return dict(found)


@functools.cache
def _kernels() -> dict[str, list[tuple[int, int]]]:
    """The opsets, first and last, that kernels for the CPU are made for, by operator of the standard's domain."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for kernel in runtime.get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider" and not kernel.domain:
            found[kernel.op_name].append(kernel.version_range)
    return dict(found)


@functools.cache
def newest_opsets() -> dict[str, int]:
    """The domains that ONNX Runtime knows and their newest opsets: what it takes where a model imports no other."""
    found: dict[str, int] = {}
    for (domain, _), schemas in _schemas().items():
        found[domain] = max(found.get(domain, 0), *(schema.since_version for schema in schemas))
    return found


def is_known(domain: str, operator: str) -> bool:
    """Whether ONNX Runtime has an operator of this name; it takes its own where a model has a function of that name."""
    return (domain, operator) in _schemas()


def newest_schema(domain: str, operator: str) -> Any:
    """ONNX Runtime's newest schema of an operator, None where it has none. It looks like ``onnx.defs.OpSchema``."""
    return max(_schemas().get((domain, operator), ()), key=lambda schema: schema.since_version, default=None)


def is_runnable(operator: str, opset: int) -> bool:
    """Whether ONNX Runtime runs an operator of this name of the standard's domain at ``opset`` on the CPU."""
    since = [schema.since_version for schema in _schemas().get(("", operator), ())]
    last = max((version for version in since if version <= opset), default=0)
    if onnx.defs.has(operator, opset):
        schema: Any = onnx.defs.get_schema(operator, opset)  # onnx's stubs lack half of it
        if operator == "Constant" or schema.has_function or schema.has_context_dependent_function:
            return True
    return any(last in (first, end) or first < last < end != OPEN for first, end in _kernels().get(operator, ()))

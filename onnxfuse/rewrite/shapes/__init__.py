"""Shape inference of our own: a shape function for each operator where sizes are multiplied or content is followed.

For every other operator, and where a shape function does not know, ``inference`` asks ONNX.

The modules of this package are found by being there. A target that brings operators of its own brings shape functions for them
in the same way, from its own module:

    @shape_function("Blend", domain="com.acme")
    def blend(analysis, node, output):
        info = analysis[node.inputs[0]]
        return ValueInfo(info.dtype, info.shape)
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx_ir as ir

from onnxfuse.errors import UsageError

if TYPE_CHECKING:
    from onnxfuse.rewrite.analysis import Analysis, Dim, ValueInfo

ShapeFunction = Callable[["Analysis", ir.Node, int], "ValueInfo | None"]
"""What is known of a node's output of that number, given what the analysis knows of its inputs; None where it is nothing."""

_FUNCTIONS: dict[tuple[str, str], ShapeFunction] = {}


def shape_function(*operators: str, domain: str = "") -> Callable[[ShapeFunction], ShapeFunction]:
    """Register the decorated shape function for these operators of a domain. Raises UsageError: one has a shape function."""

    def decorate(function: ShapeFunction) -> ShapeFunction:
        for operator in operators:
            register(domain, operator, function)
        return function

    return decorate


def register(domain: str, operator: str, function: ShapeFunction) -> None:
    """Take ``function`` for an operator; a module that is loaded again replaces its own.

    Raises:
        UsageError: the operator has a shape function from elsewhere.
    """
    known = _FUNCTIONS.setdefault((domain, operator), function)
    if known.__module__ != function.__module__:
        raise UsageError(
            f"{function.__module__} brings a shape function for {operator} of domain {domain!r}, and {known.__module__} has one; "
            f"leave one of them out"
        )
    _FUNCTIONS[domain, operator] = function


def find(domain: str, operator: str) -> ShapeFunction | None:
    """The shape function of an operator; None where it has none."""
    _load()
    return _FUNCTIONS.get((domain, operator))


MOST = 1 << 63
"""Sizes are smaller: ONNX has 64 bits for them, with the sign."""


def in_64_bits(analysis: Analysis, info: ValueInfo) -> ValueInfo:
    """What a shape function knows, less what ONNX could not hold: products of the sizes that a stranger's file says."""

    def fits(dim: Dim) -> bool:
        return abs(dim.coef) < MOST

    if all(fits(dim) for dim in (*(info.shape or ()), *(info.data or ()))):
        return info
    shape = None if info.shape is None else tuple(dim if fits(dim) else analysis.size() for dim in info.shape)
    return replace(info, shape=shape, data=info.data if all(map(fits, info.data or ())) else None)


@functools.cache
def _load() -> None:
    """Import the modules of this package. Not when it is imported itself: they need ``analysis``, which needs it."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")

"""Folders as other libraries want them, a file each: a file that defines a ``Layout`` here is found (``onnxfuse.plugins``)."""

from __future__ import annotations

from onnxfuse import plugins
from onnxfuse.errors import UsageError
from onnxfuse.layouts.api import FLOAT, INT8, Content, Layout

__all__ = ["FLOAT", "INT8", "Content", "Layout", "layout", "layouts"]


def layouts() -> dict[str, Layout]:
    """Every layout by its name: those of this package, and those that others bring."""
    return plugins.find(Layout, "onnxfuse.layouts")


def layout(name: str) -> Layout:
    """The layout of that name. Raises UsageError."""
    known = layouts()
    if name not in known:
        raise UsageError(f"no layout named {name!r}; choose one of {', '.join(known)}")
    return known[name]

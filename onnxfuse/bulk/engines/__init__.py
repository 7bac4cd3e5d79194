"""Who makes the parts of a job: a file for each engine."""

from __future__ import annotations

from onnxfuse import plugins
from onnxfuse.bulk.engine import Engine
from onnxfuse.errors import UsageError


def engine(name: str) -> Engine:
    """The engine of a name, of this package's or of those that others bring. Raises UsageError."""
    known = plugins.find(Engine, "onnxfuse.bulk.engines")
    if name not in known:
        raise UsageError(f"no engine named {name!r}; choose one of {', '.join(known)}")
    return known[name]

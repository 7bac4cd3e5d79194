"""The verbs as functions, with keyword options and typed results; ``import onnxfuse`` shows them.

Each takes what its command takes, and writes the same files; a module here for each of ``cli``.
"""

from onnxfuse.api.judge import benchmark, check, evaluate
from onnxfuse.api.make import ExportOptions, OptimizeOptions, QuantizeOptions, export, load, optimize, package, push, quantize
from onnxfuse.api.scale import map
from onnxfuse.api.study import diff, profile, report

__all__ = [
    "ExportOptions",
    "OptimizeOptions",
    "QuantizeOptions",
    "benchmark",
    "check",
    "diff",
    "evaluate",
    "export",
    "load",
    "map",
    "optimize",
    "package",
    "profile",
    "push",
    "quantize",
    "report",
]

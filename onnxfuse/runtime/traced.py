"""A model in ONNX Runtime that notes how long each kernel of each call took: its own profiler's trace, read."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxfuse.errors import ModelError, StorageError, first_line
from onnxfuse.io import onnx_file
from onnxfuse.runtime.api import Feeds, Outputs, Settings
from onnxfuse.runtime.ort import runner_of
from onnxfuse.runtime.sessions import GRAPH, open_session

KERNEL, CALL = "_kernel_time", "model_run"
"""In a trace: how the name of what a node took ends, and what a call is named."""


@dataclass(frozen=True)
class Kernel:
    """A node of a call. Times are in microseconds, whole ones, as the profiler's clock has them.

    Args:
        name: the node's; an operator and a number where it has none.
        operator: its operator, without the domain.
        start: when it began.
        taken: how long it took.
        inside: of an operator with bodies, what ran in these; the node took as long, and its own work beside.
    """

    name: str
    operator: str
    start: int
    taken: int
    inside: tuple[Kernel, ...] = ()

    @property
    def own(self) -> int:
        """What it took beside what ran inside of it."""
        return max(0, self.taken - sum(kernel.taken for kernel in self.inside))


@dataclass(frozen=True)
class Call:
    """One call: what it took in all, in microseconds, and the kernels of the main graph in the order of running."""

    taken: int
    kernels: tuple[Kernel, ...] = field(repr=False)


class Traced:
    """A model in ONNX Runtime as a function from feeds to outputs, whose calls are told of afterwards.

    Args:
        path: an .onnx file.
        settings: what to open it with.
        folder: an empty one that nobody else uses: it holds the graph with its weights, and then the trace.

    Raises:
        StorageError: the folder has no room for the weights.
        ModelError: ONNX Runtime cannot open it; or, called, cannot run it.
    """

    def __init__(self, path: Path, settings: Settings, folder: Path) -> None:
        needed, free = onnx_file.model_bytes(path), shutil.disk_usage(folder).free
        if needed > free:
            raise StorageError(
                f"{folder.parent} has {free / 1e6:.0f} MB free, and the graph that ONNX Runtime makes of {path} takes "
                f"{needed / 1e6:.0f} MB there; free some space, or name another folder in TMPDIR"
            )
        self.path = path
        self._folder = folder
        self._session = open_session(path, settings, trace=folder)
        self._run = runner_of(self._session, path, settings)
        self.graph = ir.from_proto(onnx_file.skim(folder / GRAPH)).graph
        """What ONNX Runtime runs, after its own rewrites; the nodes stand in the order of running."""

    def __call__(self, feeds: Feeds) -> Outputs:
        return self._run(feeds)

    def end(self) -> list[Call]:
        """All calls so far, in order; of those that come later nothing is noted. Raises StorageError: the trace is not whole."""
        file = Path(self._session.end_profiling())
        try:
            events = json.loads(file.read_bytes())
        except (OSError, ValueError) as error:
            raise StorageError(
                f"what ONNX Runtime noted of {self.path} in {self._folder.parent} is not whole ({first_line(error)}); free some "
                "space there, or name another folder in TMPDIR"
            ) from error
        finally:
            file.unlink(missing_ok=True)
        return calls_of(events, bodies_of(self.graph))


def bodies_of(graph: ir.Graph) -> frozenset[str]:
    """The operators of a graph that have bodies."""
    return frozenset(
        node.op_type
        for node in graph.all_nodes()
        if any(attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attr in node.attributes.values())
    )


def calls_of(events: list[dict[str, Any]], bodies: frozenset[str]) -> list[Call]:
    """The calls in a trace. An event stands where it ended: what ran inside a node, in front of the node; a call's, at its end.

    Raises:
        ModelError: the trace is of another form than that of ONNX Runtime 1.32.
    """
    calls, kernels = [], list[Kernel]()
    try:
        for event in events:
            name = event["name"]
            if event["cat"] == "Session" and name == CALL:
                calls.append(Call(event["dur"], tuple(kernels)))
                kernels = []
            elif event["cat"] == "Node" and name.endswith(KERNEL):
                operator, start, inside = event["args"]["op_name"], event["ts"], list[Kernel]()
                while operator in bodies and kernels and kernels[-1].start >= start:
                    inside.insert(0, kernels.pop())
                kernels.append(Kernel(name.removesuffix(KERNEL), operator, start, event["dur"], tuple(inside)))
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"ONNX Runtime writes its trace in an unknown form ({first_line(error)}); install a version that "
            "onnxfuse doctor knows"
        ) from error
    return calls

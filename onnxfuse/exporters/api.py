"""What a framework and an exporter are: a file of this package that defines one is found (``onnxfuse.plugins``)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse import plugins
from onnxfuse.runtime.api import Runner

if TYPE_CHECKING:
    from onnxfuse.exporters.checkpoint import Checkpoint


@dataclass(frozen=True)
class Opening:
    """How to open a source.

    Args:
        task: None takes the one that the checkpoint was saved for.
        model_type: overrides config.json.
        random_weights: build the architecture that the source names, without any download.
        attention: ``sdpa`` or ``eager``: which of transformers' PyTorch attentions to export.
        seed: of the random weights.
        outputs: what the graph shows; the task's outputs when empty.
    """

    task: str | None = None
    model_type: str | None = None
    random_weights: bool = False
    attention: str = "sdpa"
    seed: int = 0
    outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Framework:
    """What runs a checkpoint before it is exported.

    Args:
        name: as ``--framework`` takes it.
        label: for people.
        recognizes: whether a source is its own: a path or hub id by its files, or a model object. It need not be installed.
        open: a source as a checkpoint. Raises MissingExtraError where it is not installed.
        run: a checkpoint of its own as a runner with so many threads; 0 leaves their number to it.
        default: takes what no framework recognizes (a hub id).
    """

    name: str
    label: str
    recognizes: Callable[[Any], bool]
    open: Callable[[Any, Opening], Checkpoint]
    run: Callable[[Checkpoint, int], Runner]
    default: bool = False


@dataclass(frozen=True)
class Exporter:
    """One way to ONNX.

    Args:
        name: as ``--exporter`` takes it.
        framework: the name of the one whose checkpoints it takes.
        opset: what it writes when none is asked for: the newest that all runtimes of 2025 read, or that it knows.
        opsets: what may be asked for.
        write: writes a checkpoint to a path at an opset.
        default: the one for its framework when none is asked for.
    """

    name: str
    framework: str
    opset: int
    opsets: range
    write: Callable[[Checkpoint, Path, int], None]
    default: bool = False


PACKAGE = "onnxfuse.exporters"


def frameworks() -> dict[str, Framework]:
    """Every framework by its name, the default one first."""
    found = plugins.find(Framework, PACKAGE)
    return dict(sorted(found.items(), key=lambda item: not item[1].default))


def exporters(framework: str = "") -> dict[str, Exporter]:
    """Every exporter by its name, or a framework's, default ones first."""
    found = plugins.find(Exporter, PACKAGE)
    chosen = {name: known for name, known in found.items() if framework in ("", known.framework)}
    return dict(sorted(chosen.items(), key=lambda item: not item[1].default))

"""ONNX Runtime sessions. Options are the defaults that users get, unless ``Settings`` say otherwise."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

from onnxfuse.errors import ModelError, first_line
from onnxfuse.io.atomic import shown
from onnxfuse.io.files import require_file
from onnxfuse.runtime import denormals
from onnxfuse.runtime.api import Feeds, Outputs, Settings, require_inputs

QUIET = 4
"""ONNX Runtime's log level "fatal": what goes wrong comes as an exception, and is told once."""

PLAIN = Settings()


def open_session(model: Path | bytes, settings: Settings = PLAIN, *, optimize: bool = True) -> ort.InferenceSession:
    """Open a model on the CPU.

    Args:
        model: a file, or a serialized model.
        settings: threads and the like.
        optimize: False runs the graph as it is written, without the loader's own rewrites.

    Raises:
        ModelError: ONNX Runtime cannot read or run it; its own words follow.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    if settings.denormals_as_zero:
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if settings.unclipped:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not settings.spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = QUIET
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(require_file(model))
    try:
        with denormals.as_zero(settings.denormals_as_zero):  # what the first session of a process asks for stays otherwise
            return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        name = "the model" if isinstance(model, bytes) else str(shown(model))
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot open {name}: {first_line(error)}") from error


def run(session: ort.InferenceSession, feeds: Feeds, path: Path | None = None) -> Outputs:
    """Outputs by name, of the feeds that the session has inputs for.

    Args:
        path: the model's file, for messages.

    Raises:
        ModelError: an input is missing, or the model fails on them.
    """
    names = [output.name for output in session.get_outputs()]
    wanted = {value.name for value in session.get_inputs()}
    require_inputs(wanted, feeds)
    try:
        outputs = session.run(names, {name: array for name, array in feeds.items() if name in wanted})
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
        raise ModelError(
            f"ONNX Runtime {ort.__version__} cannot run {path or 'the model'} on {shapes}: "
            f"{first_line(error)[-300:]}{_hint(path)}"
        ) from error
    return dict(zip(names, outputs, strict=True))


def _hint(path: Path | None) -> str:
    """The next step where sizes had to be guessed."""
    guessed = path is not None and not path.with_name("config.json").is_file()
    return "; put its config.json beside it, which tells the lengths and sizes it takes" if guessed else ""

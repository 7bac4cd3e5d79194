"""ONNX Runtime sessions: every one that onnxfuse opens is opened here.

``open_session`` and ``run`` are for models as users run them: options are the defaults that they get, unless ``Settings`` say
otherwise. ``compute`` and ``infer`` run a few nodes as they are written, for the rewriting engine, which knows no runtime.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
import onnx.numpy_helper
import onnx_ir as ir
import onnxruntime as ort

from onnxfuse import native, plugins
from onnxfuse.errors import ModelError, UsageError, first_line
from onnxfuse.io import folders
from onnxfuse.io.atomic import shown
from onnxfuse.io.files import require_file
from onnxfuse.native.functions import completed
from onnxfuse.rewrite.inference import Inferred
from onnxfuse.rewrite.shapes.native import DOMAIN
from onnxfuse.runtime import denormals
from onnxfuse.runtime.api import Feeds, Outputs, Settings, require_inputs
from onnxfuse.runtime.cores import default_threads
from onnxfuse.runtime.trial import require_harmless

QUIET = 4
"""ONNX Runtime's log level "fatal": what goes wrong comes as an exception, and is said once."""

UNKNOWN = "is not a registered function/op"
"""In ONNX Runtime's words for an operator that it has not."""

PLAIN = Settings()

ALONE = Settings(threads=1)
"""For a few nodes on few numbers: threads would take fifty times as long to start as the session to open."""


@dataclass(frozen=True)
class Devices:
    """What another library computes on (an "execution provider"), and its own options: it is asked first for each node."""

    devices: Sequence[ort.OrtEpDevice]
    options: Mapping[str, str]


@dataclass(frozen=True)
class Providers:
    """ONNX Runtime's own providers for other processors than the CPU, each with its options: the first is asked first."""

    names: Mapping[str, Mapping[str, str]]


Session: TypeAlias = ort.InferenceSession

GRAPH, WEIGHTS, TRACE = "graph.onnx", "graph.data", "trace"
"""In the folder of a traced session: the graph that it runs, that graph's weights, and how the name of its trace begins."""


def open_session(
    model: Path | bytes,
    settings: Settings = PLAIN,
    *,
    optimize: bool = True,
    on: Devices | Providers | None = None,
    trace: Path | None = None,
) -> ort.InferenceSession:
    """Open a model, on the CPU where nothing else is asked for, with the operators that others bring (``plugins.libraries``).

    Args:
        model: a file, or a serialized model.
        settings: threads and the like.
        optimize: False runs the graph as it is written, without the loader's own rewrites.
        on: devices of another library, or other processors; what these leave, ONNX Runtime computes on the CPU.
        trace: a folder for the graph as ONNX Runtime runs it (``GRAPH``), and for what each kernel took (``TRACE``), once the
            session's ``end_profiling`` is called.

    Raises:
        ModelError: ONNX Runtime cannot read or run it, or load a library; its own words follow. Or see ``require_harmless``.
    """
    source = model if isinstance(model, bytes) else str(require_file(model))
    if isinstance(model, Path):
        require_harmless(model)
    try:
        return _open(source, settings, optimize=optimize, on=on, trace=trace)
    except ModelError as error:
        name = "the model" if isinstance(model, bytes) else str(shown(model))
        bring = _bringing(str(error))
        save = "; save it again with its small tensors inside" if "external" in str(error).lower() else ""
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot open {name}: {error}{bring}{save}") from error


def _bringing(error: str) -> str:
    """What to do about an operator that ONNX Runtime has not; empty for another error."""
    if UNKNOWN not in error:
        return ""
    if DOMAIN in error and (wrong := native.trouble()):
        return f"; {wrong}"
    return f"; name the folder that brings it in {plugins.VARIABLE}"


def _open(
    source: str | bytes, settings: Settings, *, optimize: bool, on: Devices | Providers | None = None, trace: Path | None = None
) -> ort.InferenceSession:
    options = ort.SessionOptions()
    if trace is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(trace / TRACE)
        options.optimized_model_filepath = str(trace / GRAPH)
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
    options.intra_op_num_threads = settings.threads or default_threads()
    if settings.denormals_as_zero:
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if settings.unclipped:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if not settings.spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = QUIET
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers: list[object] | None = ["CPUExecutionProvider"]
    if isinstance(on, Devices):
        providers = None
        options.add_provider_for_devices(on.devices, dict(on.options))
    elif on is not None:
        providers = [*((name, dict(chosen)) for name, chosen in on.names.items()), "CPUExecutionProvider"]
    with refusals(), denormals.as_zero(settings.denormals_as_zero):  # the first session of a process sets it for good otherwise
        _require_own(source)
        for library in libraries():
            with _naming(library):
                options.register_custom_ops_library(str(library))
        return ort.InferenceSession(source, options, providers=providers)


def libraries() -> list[Path]:
    """The libraries that bring ONNX Runtime operators: ours where it can be used, and those that others bring."""
    return [*([] if native.trouble() else [native.LIBRARY]), *plugins.libraries()]


def _require_own(source: str | bytes) -> None:
    """Raises UsageError: a model has operators of our own, and their library is there but cannot be used.

    Where there is none, the functions of standard operators run that such a model holds.
    """
    if native.is_built() and (wrong := native.trouble()) and _names(source, DOMAIN.encode()):
        raise UsageError(wrong)


def _names(source: str | bytes, domain: bytes) -> bool:
    """Whether a domain's name stands in a model."""
    if isinstance(source, bytes):
        return domain in source
    if not Path(source).stat().st_size:
        return False
    with Path(source).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(domain) >= 0


@contextlib.contextmanager
def _naming(library: Path) -> Iterator[None]:
    """Raises UsageError for a library that cannot be loaded: it, and no model, is at fault."""
    try:
        yield
    except Exception as error:
        raise UsageError(f"the library {library} cannot be loaded: {first_line(error)}; build it for this machine") from error


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Raises ModelError for ONNX Runtime's errors, which have no class in common: its own words, and nothing else."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        raise ModelError(first_line(error)) from error


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
        with refusals():
            outputs = session.run(names, {name: array for name, array in feeds.items() if name in wanted})
    except ModelError as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
        said = f"{_end(str(error))}{_hint(path, str(error))}"
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot run {path or 'the model'} on {shapes}: {said}") from error
    return dict(zip(names, outputs, strict=True))


def _end(text: str, limit: int = 300) -> str:
    """The end of what ONNX Runtime says, where it comes to the point, from the beginning of a word."""
    return text if len(text) <= limit else f"... {text[4 - limit :].partition(' ')[2]}"


MEMORY = ("allocat", "bad_alloc", "memory")
"""In ONNX Runtime's words where a tensor is too large."""


def _hint(path: Path | None, said: str) -> str:
    """The next step where sizes had to be guessed, or are too large anyway."""
    if any(word in said for word in MEMORY):
        return "; give it fewer rows or tokens, or more memory"
    guessed = path is not None and not (folders.home_of(path) / "config.json").is_file()
    return "; put its config.json beside it, which tells the lengths and sizes it takes" if guessed else ""


def compute(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """A model's outputs, in its order, computed as it is written.

    Args:
        feeds: an array for each input, by name.

    Raises:
        ModelError: ONNX Runtime cannot run it: its own words, and nothing else.
    """
    given = dict(feeds)
    if any(node.domain == DOMAIN for node in model.graph.node):  # whose weights must be constants
        model, given = _holding(model, given), {}
    session = _open(model.SerializeToString(), ALONE, optimize=False)
    with refusals():
        return [np.asarray(array) for array in session.run([value.name for value in model.graph.output], given)]


def _holding(model: onnx.ModelProto, feeds: Feeds) -> onnx.ModelProto:
    """A copy of a model with our operators' functions, whose inputs are constants."""
    held = onnx.ModelProto()
    held.CopyFrom(model)
    del held.graph.input[:]
    held.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in feeds.items())
    return completed(held)


TYPES = {name.lower(): ir.DataType(kind) for name, kind in onnx.TensorProto.DataType.items() if kind}
"""ONNX Runtime's names of types: tensor(float) and so on."""


def infer(model: onnx.ModelProto) -> list[Inferred]:
    """Type and sizes of each of a model's outputs, as ONNX Runtime infers them; unknown ones where it cannot open the model."""
    try:
        session = _open(completed(model).SerializeToString(), ALONE, optimize=False)
    except ModelError:
        return [(None, None)] * len(model.graph.output)
    return [(TYPES.get(value.type.removeprefix("tensor(").removesuffix(")")), _sizes(value)) for value in session.get_outputs()]


def _sizes(value: ort.NodeArg) -> tuple[int | str | None, ...] | None:
    """None for a scalar as for an unknown shape: ONNX Runtime says the same of both."""
    return tuple(value.shape) or None

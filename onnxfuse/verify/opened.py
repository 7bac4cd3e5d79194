"""A model file while it is worked with: read once, opened once, and asked the same once."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxfuse.errors import OnnxfuseError
from onnxfuse.io import atomic, external, folders, onnx_file
from onnxfuse.runtime import Feeds, Outputs, Runner, Settings, declared, open_runner, open_session
from onnxfuse.runtime.trial import require_harmless, trust
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.meaning import understood
from onnxfuse.verify.profile import Profile

PLAIN = Settings()

REMEMBERED = 1 << 29
"""Bytes of outputs that are remembered of one model; what comes after is computed each time."""


class Remembered:
    """A runner that computes its outputs for the same feeds once.

    Whether a model gives the same outputs for the same inputs is not for it to answer: that is asked of ``run`` itself.
    """

    def __init__(self, run: Runner) -> None:
        self.run = run
        self._known: dict[bytes, Outputs] = {}
        self._bytes = 0

    def __call__(self, feeds: Feeds) -> Outputs:
        key = _digest(feeds)
        if key is None:
            return self.run(feeds)
        if key not in self._known:
            outputs = self.run(feeds)
            self._bytes += sum(array.nbytes for array in outputs.values() if isinstance(array, np.ndarray))
            if self._bytes > REMEMBERED:
                return outputs
            self._known[key] = outputs
        return dict(self._known[key])


def _digest(feeds: Feeds) -> bytes | None:
    """What feeds are known by; None for texts, which have no bytes of their own."""
    digest = hashlib.blake2b()
    for name, array in sorted(feeds.items()):
        if array.dtype.hasobject:
            return None
        digest.update(f"{name} {array.dtype.str} {array.shape} ".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


class Opened:
    """A model file, its graph, and its runners.

    Args:
        path: the file; it may be staged, and ``move`` then follows it to its place.
        model: its graph, where the file was written from it just now; read when asked for otherwise.
        config: config.json beside it; read when None.
        keep: whether runners stay open, and remember their outputs, until the object is gone. Else only the last one stays, until
            ``close``: two models need not fit into memory side by side.
    """

    def __init__(
        self, path: Path, model: ir.Model | None = None, config: Mapping[str, Any] | None = None, *, keep: bool = False
    ) -> None:
        self.path, self.keep = path, keep
        self._model, self._config = model, config
        self._runners: dict[Settings, Runner] = {}
        if model is not None:
            trust(path)

    def __str__(self) -> str:
        return str(atomic.shown(self.path))

    @property
    def model(self) -> ir.Model:
        """Its graph, weights in the file. Not to be edited: take a ``clone``. Raises UsageError, ModelError."""
        if self._model is None:
            self._model = onnx_file.load(self.path)
            require_harmless(self.path)
        return self._model

    @cached_property
    def declared(self) -> ir.Model:
        """Its graph, or of another format than ONNX what it takes and gives. Raises as ``runtime.declared``."""
        return self.model if self.path.suffix == ".onnx" else declared(self.path)

    @property
    def config(self) -> Mapping[str, Any]:
        """config.json beside it."""
        if self._config is None:
            self._config = folders.read_config(self.path)
        return self._config

    @property
    def size(self) -> int:
        """Bytes of the file, and of those that hold its weights."""
        return onnx_file.model_bytes(self.path, self.model)

    @cached_property
    def inputs(self) -> Profile:
        """What it takes, as its graph shows it. Raises ModelError."""
        return profile_of(self.declared, self.config)

    @cached_property
    def profile(self) -> Profile:
        """What it takes, its masks meant as it means them. Raises ModelError."""
        return understood(self.inputs, self.runner())

    def runner(self, settings: Settings = PLAIN) -> Runner:
        """The model as a function from feeds to outputs. Raises ModelError."""
        if settings not in self._runners:
            if not self.keep:
                self.close()
            run = open_runner(self.path, settings)
            self._runners[settings] = Remembered(run) if self.keep else run
        return self._runners[settings]

    def close(self) -> None:
        """Give the memory of its runners back."""
        self._runners.clear()

    def move(self, path: Path) -> None:
        """Say that the file, with those that hold its weights, is at ``path`` now."""
        if self._model is not None:
            external.follow(self._model, self.path, path)
            trust(path)
        self.path = path


@contextlib.contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Where our own code fails on a model that ONNX Runtime cannot open either, it is the model's fault: its words are the error.

    Raises:
        ModelError: see ``open_session``. Anything else that is raised inside passes.
    """
    try:
        yield
    except OnnxfuseError:
        raise
    except Exception:
        open_session(path, optimize=False)
        raise


def opened(model: Path | Opened) -> Opened:
    """A model that may be opened already."""
    return model if isinstance(model, Opened) else Opened(model)


def afresh(run: Runner) -> Runner:
    """The runner itself, without what it remembers."""
    return run.run if isinstance(run, Remembered) else run

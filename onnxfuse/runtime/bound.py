"""A session whose inputs and outputs lie in a device's memory: nothing is copied but what goes in and comes out.

Source: ONNX Runtime's IOBinding; CUDA graphs, which replay the kernels of a run on the memory that it used.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from onnxfuse.errors import ModelError, one_line
from onnxfuse.runtime.api import Feeds, Outputs, Runner, require_inputs
from onnxfuse.runtime.sessions import Session, refusals


def bound(session: Session, device: str, path: Path, *, again: bool) -> Runner:
    """A session as a function from feeds to outputs.

    Args:
        device: ONNX Runtime's word for it: cuda or cpu.
        path: the model's file, for messages.
        again: whether inputs of one shape share their memory from call to call, as a CUDA graph needs; such a runner is for one
            thread.

    Raises:
        ModelError, called: an input is missing, or the model fails on them.
    """
    wanted = {value.name for value in session.get_inputs()}
    names = [value.name for value in session.get_outputs()]
    held: dict[tuple[Any, ...], Any] = {}

    def call(feeds: Feeds) -> Outputs:
        require_inputs(wanted, feeds)
        given = {name: np.ascontiguousarray(feeds[name]) for name in sorted(wanted)}
        key = tuple((array.dtype.str, array.shape) for array in given.values())
        try:
            with refusals():
                if again and key in held:
                    binding, values = held[key]
                    for name, array in given.items():
                        values[name].update_inplace(array)
                else:
                    binding, values = _binding(session, device, given, names)
                    if again:
                        held[key] = binding, values
                session.run_with_iobinding(binding)
                return dict(zip(names, binding.copy_outputs_to_cpu(), strict=True))
        except (ModelError, RuntimeError) as error:  # a bound run raises Python's own
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in given.items())
            raise ModelError(f"ONNX Runtime {ort.__version__} cannot run {path} on {shapes}: {one_line(error)}") from error

    return call


def _binding(session: Session, device: str, given: Feeds, names: list[str]) -> tuple[Any, dict[str, Any]]:
    binding = session.io_binding()
    values = {name: ort.OrtValue.ortvalue_from_numpy(array, device, 0) for name, array in given.items()}
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for name in names:
        binding.bind_output(name, device)
    return binding, values

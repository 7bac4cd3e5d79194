"""An optimized model as a torch module with the interface of the ``transformers`` class that it stands for."""

from __future__ import annotations

import contextlib
import inspect
import os
import shutil
import types
import typing
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers.utils.generic import ModelOutput

from onnxfuse.architecture import IDS, MASK, PROMPT, TYPES
from onnxfuse.choice import BEST
from onnxfuse.errors import ExportError, UsageError, first_line
from onnxfuse.integrations.accelerate import SHOWN
from onnxfuse.io import folders
from onnxfuse.model import Model

ABSENT: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    MASK: np.ones_like,
    TYPES: np.zeros_like,
    PROMPT: lambda ids: np.zeros(len(ids), np.int64),
}
"""What the classes of ``transformers`` take where such an input is not given, made of the ids."""

IGNORED = frozenset({"output_attentions", "output_hidden_states", "use_cache"})
"""Arguments about what comes back beside the outputs, which are false by default; true is refused."""


@dataclass(frozen=True)
class Interface:
    """How a class of ``transformers`` is called, and what it returns.

    Args:
        name: of the class.
        parameters: of its ``forward``, in order.
        result: the class of its output.
    """

    name: str
    parameters: tuple[str, ...]
    result: type[ModelOutput]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what it returns."""
        return tuple(inspect.signature(self.result).parameters)

    @staticmethod
    def of(name: str) -> Interface:
        """The interface of a class, by name. Raises ExportError: ``transformers`` has none, or does not say what it returns."""
        kind = getattr(transformers, name, None)
        if kind is None or not hasattr(kind, "forward"):
            raise ExportError(
                f"transformers {transformers.__version__} has no class {name!r}; load the folder with onnxfuse.load"
            )
        signature = inspect.signature(kind.forward)
        said = typing.get_type_hints(inspect.unwrap(kind.forward)).get("return")
        kinds = typing.get_args(said) if isinstance(said, types.UnionType) or typing.get_origin(said) is typing.Union else (said,)
        results = [each for each in kinds if isinstance(each, type) and issubclass(each, ModelOutput)]
        if not results:
            raise ExportError(f"{name} does not say what its forward returns; load the folder with onnxfuse.load")
        taken = [each.name for each in signature.parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
        return Interface(name, tuple(taken[1:]), results[0])


class Accelerated(torch.nn.Module):
    """A model that ONNX Runtime, or another runtime, computes, called as the class of ``transformers`` that it stands for.

    It is for inference on the CPU in float32: tensors in, the same output classes out, of any batch and length.

    Args:
        folder: where its files lie.
        model: the opened model.
        interface: of the class that it stands for.
        config: that class's config object.
        kept: what takes ``folder`` away when this module is gone; None where it stays.
    """

    def __init__(
        self, folder: Path, model: Model, interface: Interface, config: Any, kept: contextlib.ExitStack | None = None
    ) -> None:
        super().__init__()
        self.config, self.folder, self.kept = config, folder, kept
        self.interface, self.runtime_model = interface, model
        self.fingerprint = folders.fingerprint(model.path)
        self.name_or_path, self.main_input_name = str(folder), model.inputs[0]
        self.base_model_prefix, self.generation_config = "", None
        self._original: tuple[torch.nn.Module, ...] = ()  # in a tuple, so that it is no part of this module
        self._replaced = False
        super().train(False)
        self._known = frozenset(interface.parameters) | IGNORED
        if kept is not None:
            self._end = weakref.finalize(self, _close, kept, os.getpid())

    def stand_by(self, original: torch.nn.Module | None) -> None:
        """Let a model answer what this one refuses; None for none."""
        self._original = () if original is None else (original,)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs of the class that it stands for, without gradients. See there for the arguments.

        What is refused the original answers, where ``accelerate`` was asked for that.

        Raises:
            UsageError: an argument that the graph has no input for, tensors on another device, or what ``Model`` refuses.
        """
        if not self._replaced:
            try:
                return self._run(args, dict(kwargs))
            except UsageError:
                if not self._original:
                    raise
        return self._original[0](*args, **kwargs)

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        as_dict = kwargs.pop("return_dict", None)
        given = self._named(args, kwargs)
        feeds = {name: self._array(name, given) for name in self.runtime_model.inputs}
        if unused := [name for name in given if name not in feeds]:
            raise UsageError(f"{self.interface.name} was optimized without {unused[0]}; {self._advice(unused[0])}")
        outputs = self.runtime_model(**feeds)
        tensors = {name: torch.from_numpy(array) for name, array in outputs.items()}
        if as_dict is False or (as_dict is None and not getattr(self.config, "return_dict", True)):
            return tuple(tensors.values())
        return self.interface.result(**tensors)

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that say something, by name. Raises UsageError for one that the class has not, or that is given twice."""
        if len(args) > len(self.interface.parameters):
            raise UsageError(f"{self.interface.name} takes {len(self.interface.parameters)} arguments, {len(args)} are given")
        named = dict(zip(self.interface.parameters, args, strict=False))
        if twice := sorted(set(named) & set(kwargs)):
            raise UsageError(f"{twice[0]} is given twice")
        for name in SHOWN:
            if getattr(self.config, name, False) is True:
                named.setdefault(name, True)
        named |= kwargs
        for name, value in named.items():
            if name not in self._known and value is not None:
                raise UsageError(f"{self.interface.name} has no argument {name!r}; it has {', '.join(self.interface.parameters)}")
        return {name: value for name, value in named.items() if value is not None and not (name in IGNORED and value is False)}

    def _array(self, name: str, given: Mapping[str, Any]) -> np.ndarray:
        if name in given:
            return self._as_array(name, given[name])
        if name in ABSENT and IDS in given:
            return ABSENT[name](self._as_array(IDS, given[IDS]))
        raise UsageError(f"{self.interface.name} needs {name}; got {', '.join(given) or 'nothing'}")

    def _as_array(self, name: str, value: Any) -> np.ndarray:
        """A tensor's numbers, in its own memory."""
        if not isinstance(value, torch.Tensor):
            raise UsageError(f"{name} is a {type(value).__name__}, wanted a tensor")
        if value.device.type != "cpu":
            raise UsageError(f"{name} is on {value.device}, and the optimized model on the CPU; move it with .to('cpu')")
        if value.requires_grad:
            raise UsageError(
                f"{name} requires a gradient, and the optimized model has none; detach it, or call the original model"
            )
        return value.numpy()

    def _advice(self, name: str) -> str:
        if name in IGNORED or name == "labels":
            return "call the original model for it"
        return f"it takes {', '.join(self.runtime_model.inputs)}; call the original model for it"

    # What libraries ask of a model ------------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        return self._first().device

    @property
    def dtype(self) -> torch.dtype:
        return self._first().dtype

    def _first(self) -> torch.Tensor:
        """A tensor of the type and on the device that it computes with."""
        return next(self._original[0].parameters()) if self._replaced else torch.empty(0)

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, torch.nn.Parameter]]:
        """Those of the original where that stands by; else none."""
        return (
            self._original[0].named_parameters(*args, **kwargs) if self._original else super().named_parameters(*args, **kwargs)
        )

    def can_generate(self) -> bool:
        return False

    def train(self, mode: bool = True) -> Accelerated:
        """Evaluation mode, which it is always in. Raises UsageError for training, where no original stands by."""
        if self._original:
            self._replaced |= mode  # its weights may change
            self._original[0].train(mode)
            self.training = mode
        elif mode:
            raise UsageError(
                f"{self.interface.name} is optimized for inference; train the original model, and accelerate it again"
            )
        return self

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Accelerated:
        """What ``to``, ``half`` and ``cuda`` go through. Raises UsageError where it would move or change the model,
        and no original stands by.
        """
        try:
            probe = fn(torch.zeros(1))
        except (AssertionError, RuntimeError) as error:  # a PyTorch without that device
            raise UsageError(f"{self.interface.name} is optimized for float32 on the CPU: {first_line(error)}") from error
        if self._original and (self._replaced or probe.device.type != "cpu" or probe.dtype != torch.float32):
            self._replaced = True
            self._original[0]._apply(fn, recurse)  # type: ignore[no-untyped-call]
        elif probe.device.type != "cpu" or probe.dtype != torch.float32:
            raise UsageError(
                f"{self.interface.name} is optimized for float32 on the CPU, wanted {probe.dtype} on {probe.device}; "
                "use the original model"
            )
        return self

    def save(self, folder: str | Path) -> Path:
        """Copy its files into a folder that is new or empty, for ``load_torch`` and ``load``. Raises UsageError."""
        to = Path(folder)
        if to.exists() and (not to.is_dir() or any(to.iterdir())):
            raise UsageError(f"{to} is there already, and not an empty folder; give a new one")
        shutil.copytree(self.folder, to, dirs_exist_ok=True)
        name = self.runtime_model.path.name
        for better in BEST[: BEST.index(name)] if name in BEST else ():  # of an earlier run there; a folder's load takes these
            for each in to.glob(f"{Path(better).stem}.*"):
                each.unlink()
        return to

    save_pretrained = save

    def extra_repr(self) -> str:
        return f"{self.interface.name}, {self.runtime_model}"


def _close(kept: contextlib.ExitStack, process: int) -> None:
    """Take a module's files away, where they were made: a forked child ends without them being its own."""
    if os.getpid() == process:
        kept.close()

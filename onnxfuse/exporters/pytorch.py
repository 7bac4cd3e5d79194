"""Load a PyTorch checkpoint: a hub id, a local folder, random weights, or a model that is already in memory."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse import catalog
from onnxfuse.architecture import Architecture
from onnxfuse.errors import ExportError, MissingExtraError, UsageError, one_line
from onnxfuse.exporters import bounds, pooling, weights
from onnxfuse.exporters.api import Framework, Opening
from onnxfuse.exporters.checkpoint import Checkpoint
from onnxfuse.exporters.description import Description, cannot_load, describe, family_of, homes
from onnxfuse.exporters.faithful import Checker
from onnxfuse.exporters.loaded import BARE, HIDDEN, Arrays, Output, shown
from onnxfuse.exporters.run_pytorch import torch_runner
from onnxfuse.exporters.sentence import inputs_of
from onnxfuse.exporters.tasks import auto_classes, checked, choose_outputs, class_for, classification, tasks_of
from onnxfuse.io.hub import require_there
from onnxfuse.io.quiet import quiet
from onnxfuse.verify.inputs import profile_of_family

if TYPE_CHECKING:
    import torch


def recognizes(source: Any) -> bool:
    """Nothing has to tell: what no other framework takes is PyTorch's."""
    return False


def open_pytorch(source: str | Path | torch.nn.Module, opening: Opening) -> Checkpoint:
    """Load ``source`` for export. Weights come from safetensors or tf_model.h5; no code from the checkpoint runs.

    Args:
        source: a folder, a hub id, or a ``transformers`` model.

    Raises:
        MissingExtraError, ExportError, ModelError (unsupported architecture), UsageError (unknown task).
    """
    if opening.random_weights:
        family, _ = catalog.checkpoint(str(source), opening.model_type)
        checked(opening.task or next(iter(family.tasks)), family)
    elif isinstance(source, (str, Path)):
        require_checkpoint(str(source), opening.task, opening.model_type)
    transformers = require_torch()
    with _quiet(transformers):
        if not isinstance(source, (str, Path)):
            return _from_object(source, opening)
        if opening.random_weights:
            return _random(str(source), opening)
        return _pretrained(str(source), opening)


def require_torch() -> Any:
    """The ``transformers`` module. Raises MissingExtraError when it or torch is not installed."""
    try:
        with quiet():  # torchao, where it is installed, logs what of it does not load here
            importlib.import_module("torch")
            transformers = importlib.import_module("transformers")
            importlib.import_module("transformers.quantizers")
            return transformers
    except ImportError as error:
        raise MissingExtraError("exporting a PyTorch checkpoint", "torch") from error


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """transformers' loading reports and bars are noise beside ours."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _from_object(model: Any, opening: Opening) -> Checkpoint:
    """A model object, if it is a class of ``transformers`` (or one made from it) that has the task's outputs.

    Raises:
        ExportError, ModelError (unsupported architecture), UsageError (unknown task).
    """
    model = getattr(model, "_orig_mod", model)  # what torch.compile wraps
    name = type(model).__name__
    if not hasattr(model, "config") or not hasattr(model.config, "to_dict"):
        raise ExportError(f"{name} is no transformers model; give one of its classes (of a wrapper, what it wraps: model.module)")
    config = model.config.to_dict() | {"architectures": [name]}  # save_pretrained alone would write it
    family = family_of(config, None, name)
    known = tasks_of(model, family)
    if not known and opening.task is None:
        raise ExportError(
            f"{name} is a class that onnxfuse does not export; name the --task whose outputs it has: {', '.join(family.tasks)}"
        )
    chosen = checked(opening.task or known[0], family)
    if (
        known and known[0] != chosen and family.outputs_of(known[0]) == family.outputs_of(chosen)
    ):  # another head whose outputs are called alike
        raise ExportError(f"{name} is made for {known[0]}, the task asked for is {chosen}; leave it out, or load another class")
    elsewhere = {weight.device.type for weight in model.parameters()} - {"cpu"}
    if elsewhere:
        raise ExportError(f"{name} has weights on {' and '.join(elsewhere)}; move it with .to('cpu') (from meta, load it)")
    kinds = {str(weight.dtype).removeprefix("torch.") for weight in model.parameters()} - {"float32"}
    if kinds:
        raise ExportError(f"{name} has {' and '.join(sorted(kinds))} weights; exports are made in float32: call .float() first")
    given = _Loaded(model, family).run(model, chosen)
    lacking = [output for output in shown(chosen, family) if output not in given]
    if lacking:
        raise ExportError(f"{name} has no output {lacking[0]}, which task {chosen} shows; it returns {', '.join(given)}")
    outputs = choose_outputs(chosen, family, opening.outputs, given=given)
    return Checkpoint(name, pooling.wrap(model, family, chosen, outputs), family, chosen, config, {}, outputs=outputs)


def _random(name: str, opening: Opening) -> Checkpoint:
    import torch
    import transformers

    family, fields = catalog.checkpoint(name, opening.model_type)
    chosen = checked(opening.task or classification(family), family)
    config = transformers.AutoConfig.for_model(family.model_type, **fields)
    torch.manual_seed(opening.seed)
    kind = class_for(chosen, family, auto_classes(config, "AutoModel", family))
    model = kind._from_config(config, attn_implementation=_attention(kind, opening.attention))
    _disturb(model)
    as_dict = config.to_dict() | {"architectures": [type(model).__name__]}
    given = _Loaded(model, family).run(model, chosen) if opening.outputs else ()
    outputs = choose_outputs(chosen, family, opening.outputs, given=given)
    return Checkpoint(name, pooling.wrap(model, family, chosen, outputs), family, chosen, as_dict, {}, outputs=outputs)


def _disturb(model: torch.nn.Module) -> None:
    """Give biases and norms random values too: zeros and ones would hide a bias that a rewrite drops or swaps."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.02)


def _pretrained(source: str, opening: Opening) -> Checkpoint:
    description = describe(source, opening.task, opening.model_type)
    found = weights.require(description.home)
    stored = description.own(weights.read(found))
    bounds.require_bounded(description, stored)

    def load(kind: Any) -> _Loaded:
        return _Loaded(_model(kind, description, stored, opening.attention), description.family)

    checker = Checker(description, stored, auto_classes(description.config, "AutoModel", description.family), load)
    loaded = checker.faithful()
    model = loaded.model
    origin = [f"with TensorFlow's weights from {found.name}, read without TensorFlow"] if found.framework == "tf" else []
    chosen = description.task or ""
    given = checker.given(loaded) if opening.outputs else ()
    outputs = choose_outputs(chosen, description.family, opening.outputs, pooled=bool(description.chain), given=given)
    module = pooling.wrap(model, description.family, chosen, outputs, description.chain)
    return Checkpoint(
        source,
        module,
        description.family,
        chosen,
        description.config.to_dict(),
        description.files,
        origin=", ".join([*origin, *description.assumed]),
        texts=description.texts,
        outputs=outputs,
        more_inputs=inputs_of(description.chain, outputs),
    )


def _model(kind: Any, description: Description, stored: Arrays, attention: str) -> Any:
    """A model of a class, with every stored weight in it that transformers finds a place for; the others are random."""
    import torch
    import transformers

    tensors = {name: torch.from_numpy(array) for name, array in stored.items()}
    try:
        bounds.require_room(description, stored, kind)
        return kind.from_pretrained(
            None,
            config=description.config,
            state_dict=tensors,
            ignore_mismatched_sizes=True,
            attn_implementation=_attention(kind, attention),
            dtype=torch.float32,
        ).eval()
    except ExportError:
        raise
    except Exception as error:
        raise cannot_load(description, f"transformers {transformers.__version__}", kind, error) from error


def _attention(kind: Any, asked: str) -> str:
    """The attention that a class computes with: as asked, or the eager one that every class has."""
    return asked if getattr(kind, f"_supports_{asked}", False) else "eager"


@dataclass
class _Loaded:
    """A model of ``transformers`` in PyTorch, as ``loaded.Loaded``."""

    model: Any
    family: Architecture

    @property
    def kind(self) -> str:
        return type(self.model).__name__

    @property
    def prefix(self) -> str:
        return f"{self.model.base_model_prefix}."

    @property
    def required(self) -> frozenset[str]:
        return frozenset(self.model.state_dict())

    @property
    def vocabulary(self) -> int:
        return int(getattr(self.model.config, "vocab_size", 0))

    def own(self) -> Arrays:
        named = (*self.model.named_parameters(remove_duplicate=False), *self.model.named_buffers(remove_duplicate=False))
        return {name: tensor.detach().numpy() for name, tensor in named}

    def outputs(self) -> Mapping[str, Output]:
        return self._outputs

    @cached_property
    def _outputs(self) -> dict[str, Output]:
        names: dict[int, list[str]] = {}
        for name, parameter in self.model.named_parameters(remove_duplicate=False):
            names.setdefault(id(parameter), []).append(name)
        results = self.run(self.model, next(iter(tasks_of(self.model, self.family)), BARE[0]))
        results |= {HIDDEN: self.run(self.model.base_model, BARE[0])[HIDDEN]}
        return {
            name: Output(tensor.detach().numpy(), frozenset().union(*(names.get(weight, ()) for weight in _reached(tensor))))
            for name, tensor in results.items()
        }

    def run(self, module: Any, task: str) -> dict[str, torch.Tensor]:
        """What a part of the model that takes a task's inputs returns on a sample, by name. Raises ExportError."""
        import torch

        profile = profile_of_family(self.family, self.model.config.to_dict(), task)
        feeds = {name: torch.from_numpy(array) for name, array in profile.feeds(2, min(7, profile.longest), mask="right").items()}
        try:
            with torch.enable_grad():
                results = module(**feeds, return_dict=True)
            return {name: tensor for name, tensor in results.items() if isinstance(tensor, torch.Tensor)}
        except Exception as error:
            raise ExportError(f"PyTorch cannot run {self.kind} on {', '.join(feeds)}: {one_line(error)}") from error


def _reached(output: torch.Tensor) -> set[int]:
    """The identities of the weights that an output depends on, by the graph of its gradient."""
    steps: list[Any] = [output.grad_fn]
    seen, found = set(), set()
    while steps:
        step = steps.pop()
        if step is None or step in seen:
            continue
        seen.add(step)
        if hasattr(step, "variable"):
            found.add(id(step.variable))
        steps.extend(following for following, _ in step.next_functions)
    return found


def require_checkpoint(source: str, task: str | None, model_type: str | None) -> None:
    """Refuse what can be neither a usable folder nor a hub id, before anything slow is imported."""
    folder = Path(source)
    if folder.is_file():
        raise UsageError(f"{source} is a file; export takes a checkpoint's folder, a hub id, or a .keras file")
    if not folder.is_dir():
        require_there(source)
        return
    _, home, _ = homes(source)
    family = family_of(home.config(), model_type, str(home))
    if task is not None:
        checked(task, family)
    weights.require(home)


PYTORCH = Framework("pt", "PyTorch", recognizes, open_pytorch, torch_runner, default=True)

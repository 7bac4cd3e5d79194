"""What was loaded is the checkpoint, or it is refused: its weights by content, whichever framework loaded them.

A weight may be missing, or left over, only where it provably cannot reach the outputs: the framework's own gradient graph tells
which weights an output depends on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxfuse.errors import ExportError, OnnxfuseError
from onnxfuse.exporters.description import Description
from onnxfuse.exporters.loaded import BARE, HIDDEN, Arrays, Loaded, Output, outputs_of, same, shown
from onnxfuse.exporters.pairing import Fit, aliases, fit
from onnxfuse.exporters.tasks import class_for


@dataclass(frozen=True)
class Examined:
    """What is kept of a model that was looked at; ``outputs``: none when it cannot run, or nobody needs to know."""

    prefix: str
    fit: Fit
    outputs: Mapping[str, Output]


@dataclass(frozen=True)
class Checker:
    """Loads a checkpoint for a task, and holds what was loaded against what was stored.

    Args:
        description: what the checkpoint says of itself.
        stored: its weights, by their names in PyTorch and laid out as there.
        classes: the auto classes that have a model for it (``AutoModelForMaskedLM``), and that model's class.
        load: a model of such a class with the weights in it.
    """

    description: Description
    stored: Arrays
    classes: Mapping[str, Any]
    load: Callable[[Any], Loaded]
    _examined: dict[Any, Examined] = field(default_factory=dict)

    def faithful(self) -> Loaded:
        """The model of the task, which is the checkpoint.

        Raises:
            ExportError: it is not, or there is no task; the error names the weights and the tasks that fit.
        """
        task = self.description.task
        if task is None:
            known = self.description
            raise ExportError(f"{known.home} was saved as {known.saved_as}, {known.misfit}; {self._advice(None)}")
        loaded = self.load(class_for(task, self.description.family, self.classes))
        left, missing = self._wrong(task, self.description.asked, loaded)
        if left or missing:
            raise ExportError(f"{self.description.home}: {self._named(left, missing, loaded, task)}; {self._advice(task)}")
        for name in self._examine(self.description.family.tasks[task]).fit.read:
            if self.stored[name].dtype.kind == "f" and np.isnan(self.stored[name]).any():
                raise ExportError(f"{self.description.home}: weight {name} holds NaN; save the checkpoint again")
        return loaded

    def given(self, loaded: Loaded) -> list[str]:
        """What the task's model gives that depends on no weight but the checkpoint's."""
        missing = set(self._examine(self.description.family.tasks[self.description.task or ""]).fit.missing)
        return [name for name, output in outputs_of(loaded).items() if not output.reached & missing]

    def _examine(self, auto: str, loaded: Loaded | None = None) -> Examined:
        """A look at the model of an auto class, once."""
        kind = self.classes[auto]
        if kind not in self._examined:
            model = loaded or self.load(kind)
            found = fit(model, self.stored)
            whole = loaded is not None and not found.left and not found.missing
            self._examined[kind] = Examined(model.prefix, found, {} if whole else outputs_of(model))
        return self._examined[kind]

    def _wrong(self, task: str, asked: bool, loaded: Loaded | None = None) -> tuple[list[str], list[str]]:
        """The checkpoint's weights that a task's model must read and does not, and those that it must have and has not."""
        examined = self._examine(self.description.family.tasks[task], loaded)
        missing = _reaching(examined, shown(task, self.description.family))
        dead = set(examined.fit.missing) - set(missing)
        left = [name for name in examined.fit.left if not set(aliases(name, examined.prefix)) & dead]
        inside = _inside(left, examined) if task in BARE else left
        if asked or inside == left:  # a head is left out only where that was asked for
            left = [] if inside and self._explained(inside, examined, task) else inside
        return left, missing

    def _explained(self, left: Sequence[str], examined: Examined, task: str) -> bool:
        """Whether a class reads what is left over too, and gives the same outputs without depending on it.

        The class that config.json names decides alone, if it reads it. Else another one may, whose encoder gives the same: what
        is left over inside the encoder reaches a head through the last hidden state alone, as our class has no such part.
        """
        names = shown(task, self.description.family)
        if not set(names) <= set(examined.outputs):
            return False
        wanted = [examined.outputs[name] for name in names]
        order = ("AutoModelForPreTraining", "AutoModel")
        for auto in sorted(self.classes, key=lambda auto: (not self._is_saved(auto), auto not in order)):
            try:
                witness = self._examine(auto)
            except OnnxfuseError:  # a class that cannot be loaded tells nothing
                continue
            if not set(left) <= set(witness.fit.read):
                continue
            theirs = {witness.fit.read[name] for name in left}
            if all(any(same(output, other, theirs) for output in witness.outputs.values()) for other in wanted):
                return True
            if self._is_saved(auto):
                return False
            inside = auto == "AutoModel" or all(name.startswith(witness.prefix) for name in theirs)
            if inside and HIDDEN in witness.outputs and same(witness.outputs[HIDDEN], examined.outputs[HIDDEN], theirs):
                return True
        return False

    def _is_saved(self, auto: str) -> bool:
        """Whether config.json names the model's class of an auto class."""
        return str(self.classes[auto].__name__).removeprefix("TF") == self.description.saved_as

    def _named(self, left: Sequence[str], missing: Sequence[str], loaded: Loaded, task: str) -> str:
        """What is wrong, naming weights."""
        own, read = loaded.own(), self._examine(self.description.family.tasks[task]).fit.read
        if not read and left:
            return f"none of its {len(left)} weights ({listed(left, 2)}) is one of {loaded.kind}'s ({listed(missing, 2)})"
        places = {name: next((alias for alias in aliases(name, loaded.prefix) if alias in own), "") for name in left}
        reshaped = sorted((name for name, place in places.items() if place in missing), key=lambda name: -self.stored[name].ndim)
        changed = [name for name, place in places.items() if place and place not in missing]
        foreign = [name for name, place in places.items() if not place]
        absent = [name for name in missing if name not in places.values()]
        parts = []
        if reshaped:
            first = reshaped[0]
            parts.append(
                f"{first} is {_shape_text(self.stored[first])}, config.json wants {_shape_text(own[places[first]])}"
                + (f", and so for {len(reshaped) - 1} more" if len(reshaped) > 1 else "")
            )
        if absent:
            parts.append(f"no weights for {listed(absent)} of task {task}")
        if foreign:
            parts.append(f"{loaded.kind} does not read {listed(foreign)}")
        if changed:
            parts.append(f"{loaded.kind} takes other numbers for {listed(changed)}: tied weights, or computed ones")
        return "; ".join(parts)

    def _advice(self, task: str | None) -> str:
        """What to do: the tasks that load whole, or what does not go together."""
        family = self.description.family
        plain = {auto: other for other, auto in reversed(list(family.tasks.items()))}.values()  # one task of two with one class
        fits = {
            other: self._examine(family.tasks[other]).fit
            for other in family.tasks
            if other in plain and other != task and family.tasks[other] in self.classes and self._fits(other)
        }
        fewest = min((len(found.left) for other, found in fits.items() if other not in BARE), default=0)
        fitting = [f"--task {other}" for other, found in fits.items() if other in BARE or len(found.left) == fewest]
        if fitting:
            return f"its weights fit {listed(fitting, len(fitting))}"
        if begin := self._wrapped(task):
            return f"all its names begin with {begin}; save the model inside with save_pretrained, which leaves that out"
        unknown = [self.description.unknown] if self.description.unknown else []
        return "; ".join(
            [*unknown, f"weights and config.json must be of one {family.model_type} model, saved with save_pretrained"]
        )

    def _wrapped(self, task: str | None) -> str:
        """What all names of the checkpoint begin with, if a task's model has them all without it; else nothing."""
        parts = zip(*(name.split(".") for name in self.stored), strict=False)
        begin = ".".join(same[0] for same in itertools.takewhile(lambda same: len(set(same)) == 1, parts))
        auto = self.description.family.tasks[task or "feature-extraction"]
        required = self._examine(auto).fit.missing
        inner = {alias for name in self.stored for alias in aliases(name.removeprefix(f"{begin}."), self._examine(auto).prefix)}
        return f"{begin}." if begin and required and set(required) <= inner else ""

    def _fits(self, task: str) -> bool:
        try:
            return not any(self._wrong(task, asked=True))
        except OnnxfuseError:
            return False


def _reaching(examined: Examined, outputs: Sequence[str]) -> list[str]:
    """The weights that a model has from nowhere and that a task's outputs depend on."""
    if not set(outputs) <= set(examined.outputs):
        return list(examined.fit.missing)  # it cannot even run
    reached = frozenset().union(*(examined.outputs[name].reached for name in outputs))
    return [name for name in examined.fit.missing if name in reached]


def _inside(left: list[str], examined: Examined) -> list[str]:
    """Those of a checkpoint's weights that may be the encoder's: stored under its prefix, where its others are."""
    if examined.fit.read and all(name.startswith(examined.prefix) for name in examined.fit.read):
        return [name for name in left if name.startswith(examined.prefix)]
    return left


def _shape_text(array: np.ndarray) -> str:
    return f"{list(array.shape)}" if array.dtype.kind == "f" else f"{array.dtype} {list(array.shape)}"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names in a sentence; the first few, and how many more."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

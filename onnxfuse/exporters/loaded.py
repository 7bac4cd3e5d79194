"""What was loaded is the checkpoint, or it is refused: its weights by content, whichever framework loaded them.

A weight may be missing, or left over, only where it provably cannot reach the outputs: the framework's own gradient graph tells
which weights an output depends on.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from onnxfuse.architecture import OUTPUTS
from onnxfuse.errors import ExportError, OnnxfuseError

if TYPE_CHECKING:
    from onnxfuse.exporters.checkpoint import Described

HIDDEN = "last_hidden_state"
"""Among a model's outputs: what its encoder gives every head."""

BARE = ("feature-extraction", "sentence-similarity")
"""Tasks without a head: their outputs are the encoder's."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Output:
    """What a model computes on a sample, and the names of the weights that it depends on."""

    value: np.ndarray
    reached: frozenset[str]


class Loaded(Protocol):
    """A model of one class, with a checkpoint's weights in it.

    ``kind``: the class, named as PyTorch's. ``prefix``: how weights of the encoder begin in classes with a head (``bert.``).
    ``required``: the names in ``own`` that a checkpoint must hold; the others are computed. ``vocabulary``: the rows of the
    table of words, which classes tie to others; 0 where there is none.
    """

    @property
    def model(self) -> Any: ...

    @property
    def kind(self) -> str: ...

    @property
    def prefix(self) -> str: ...

    @property
    def required(self) -> frozenset[str]: ...

    @property
    def vocabulary(self) -> int: ...

    def own(self) -> Arrays:
        """Its weights and buffers by their names in PyTorch, and laid out as there."""

    def outputs(self) -> Mapping[str, Output]:
        """Its outputs on a sample, by their names, and ``HIDDEN``."""


@dataclass(frozen=True)
class Fit:
    """How a model's weights and a checkpoint's pair: ``read`` by the checkpoint's names; ``left`` are its other ones, ``missing``
    what the model has from nowhere."""

    read: Mapping[str, str]
    left: tuple[str, ...]
    missing: tuple[str, ...]


def forms(name: str, prefix: str) -> tuple[str, ...]:
    """The names in a model that a checkpoint's name may mean: with the encoder's prefix or without, and norms as TensorFlow's."""
    old = {"gamma": "weight", "beta": "bias"}
    stem, _, leaf = name.rpartition(".")
    names = (name,) if leaf not in old else (name, f"{stem}.{old[leaf]}")
    return tuple(form for name in names for form in (name, prefix + name, name.removeprefix(prefix)))


def fit(loaded: Loaded, stored: Arrays) -> Fit:
    """Pair the weights: by name where the numbers are equal too, else by the numbers alone (libraries rename weights)."""
    own = loaded.own()
    read = {}
    for name, array in stored.items():
        known = next((form for form in forms(name, loaded.prefix) if form in own), None)
        if known is not None and _equal(own[known], array):
            read[name] = known
    left = [name for name in stored if name not in read]
    taken = set(read.values())
    free = _by_content({known: array for known, array in own.items() if left and known not in taken})
    tables = _by_content({known: array for known, array in own.items() if left and array.shape[:1] == (loaded.vocabulary,)})
    for name in left:
        content = _content(stored[name])
        if free.get(content):
            read[name] = free[content].pop(0)
        elif tables.get(content):  # what a class ties to the table of words may be stored twice
            read[name] = tables[content][0]
    held = {_place(own[name]) for name in read.values()}
    missing = [name for name in own if name in loaded.required and _place(own[name]) not in held]
    return Fit(read, tuple(name for name in stored if name not in read), tuple(missing))


def _by_content(arrays: Arrays) -> dict[tuple[Any, ...], list[str]]:
    """The names of equal arrays together, by what they hold."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for name, array in arrays.items():
        found.setdefault(_content(array), []).append(name)
    return found


def _equal(first: np.ndarray, second: np.ndarray) -> bool:
    kind = first.dtype.kind == "f"
    if kind != (second.dtype.kind == "f") or first.shape != second.shape:
        return False
    if _place(first) == _place(second) or np.array_equal(first, second):
        return True
    return kind and np.array_equal(first, second, equal_nan=True)


def _content(array: np.ndarray) -> tuple[Any, ...]:
    return array.dtype.kind == "f", array.shape, hashlib.sha256(np.ascontiguousarray(array).data).digest()


def _place(array: np.ndarray) -> tuple[int, tuple[int, ...]]:
    """Where an array's numbers lie: tied weights lie in one place."""
    return array.__array_interface__["data"][0], array.shape


@dataclass(frozen=True)
class Seen:
    """What is kept of a model that was looked at; ``outputs``: none when it cannot run, or nobody needs to know."""

    prefix: str
    fit: Fit
    outputs: Mapping[str, Output]


@dataclass(frozen=True)
class Checker:
    """Loads a checkpoint for a task, and holds what was loaded against what was stored.

    Args:
        told: what the checkpoint says of itself.
        stored: its weights, by their names in PyTorch and laid out as there.
        classes: the auto classes that have a model for it (``AutoModelForMaskedLM``), and that model's class.
        load: a model of such a class with the weights in it.
    """

    told: Described
    stored: Arrays
    classes: Mapping[str, Any]
    load: Callable[[Any], Loaded]
    _seen: dict[Any, Seen] = field(default_factory=dict)

    def faithful(self) -> Loaded:
        """The model of the task, which is the checkpoint.

        Raises:
            ExportError: it is not, or there is no task; the error names the weights and the tasks that fit.
        """
        task = self.told.task
        if task is None:
            raise ExportError(f"{self.told.home} was saved as {self.told.saved_as}, {self.told.misfit}; {self._advice(None)}")
        loaded = self.load(self.classes[self.told.family.tasks[task]])
        left, missing = self._wrong(task, self.told.asked, loaded)
        if left or missing:
            raise ExportError(f"{self.told.home}: {self._named(left, missing, loaded, task)}; {self._advice(task)}")
        for name in self._see(self.told.family.tasks[task]).fit.read:
            if self.stored[name].dtype.kind == "f" and np.isnan(self.stored[name]).any():
                raise ExportError(f"{self.told.home}: weight {name} holds NaN; save the checkpoint again")
        return loaded

    def _see(self, auto: str, loaded: Loaded | None = None) -> Seen:
        """A look at the model of an auto class, once."""
        kind = self.classes[auto]
        if kind not in self._seen:
            model = loaded or self.load(kind)
            found = fit(model, self.stored)
            whole = loaded is not None and not found.left and not found.missing
            self._seen[kind] = Seen(model.prefix, found, {} if whole else _outputs(model))
        return self._seen[kind]

    def _wrong(self, task: str, asked: bool, loaded: Loaded | None = None) -> tuple[list[str], list[str]]:
        """The checkpoint's weights that a task's model must read and does not, and those that it must have and has not."""
        seen = self._see(self.told.family.tasks[task], loaded)
        missing = _reaching(seen, task)
        dead = set(seen.fit.missing) - set(missing)
        left = [name for name in seen.fit.left if not set(forms(name, seen.prefix)) & dead]
        inside = _inside(left, seen) if task in BARE else left
        if asked or inside == left:  # a head is left out only where that was asked for
            left = [] if inside and self._explained(inside, seen, task) else inside
        return left, missing

    def _explained(self, left: Sequence[str], seen: Seen, task: str) -> bool:
        """Whether a class reads what is left over too, and gives the same outputs without depending on it.

        The class that config.json names decides alone, if it reads it. Else another one may, whose encoder gives the same: what
        is left over inside the encoder reaches a head through the last hidden state alone, as our class has no such part.
        """
        if not set(_shown(task)) <= set(seen.outputs):
            return False
        wanted = [seen.outputs[name] for name in _shown(task)]
        order = ("AutoModelForPreTraining", "AutoModel")
        for auto in sorted(self.classes, key=lambda auto: (not self._is_saved(auto), auto not in order)):
            try:
                witness = self._see(auto)
            except OnnxfuseError:  # a class that cannot be loaded tells nothing
                continue
            if not set(left) <= set(witness.fit.read):
                continue
            names = {witness.fit.read[name] for name in left}
            if all(any(_same(output, other, names) for output in witness.outputs.values()) for other in wanted):
                return True
            if self._is_saved(auto):
                return False
            inside = auto == "AutoModel" or all(name.startswith(witness.prefix) for name in names)
            if inside and HIDDEN in witness.outputs and _same(witness.outputs[HIDDEN], seen.outputs[HIDDEN], names):
                return True
        return False

    def _is_saved(self, auto: str) -> bool:
        """Whether config.json names the model's class of an auto class."""
        return str(self.classes[auto].__name__).removeprefix("TF") == self.told.saved_as

    def _named(self, left: Sequence[str], missing: Sequence[str], loaded: Loaded, task: str) -> str:
        """What is wrong, naming weights."""
        own, read = loaded.own(), self._see(self.told.family.tasks[task]).fit.read
        if not read and left:
            return f"none of its {len(left)} weights ({listed(left, 2)}) is one of {loaded.kind}'s ({listed(missing, 2)})"
        places = {name: next((form for form in forms(name, loaded.prefix) if form in own), "") for name in left}
        reshaped = sorted((name for name, place in places.items() if place in missing), key=lambda name: -self.stored[name].ndim)
        changed = [name for name, place in places.items() if place and place not in missing]
        foreign = [name for name, place in places.items() if not place]
        absent = [name for name in missing if name not in places.values()]
        parts = []
        if reshaped:
            first = reshaped[0]
            parts.append(
                f"{first} is {_described(self.stored[first])}, config.json wants {_described(own[places[first]])}"
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
        family = self.told.family
        plain = {auto: other for other, auto in reversed(list(family.tasks.items()))}.values()  # one task of two with one class
        fits = {
            other: self._see(family.tasks[other]).fit
            for other in family.tasks
            if other in plain and other != task and self._fits(other)
        }
        fewest = min((len(found.left) for other, found in fits.items() if other not in BARE), default=0)
        fitting = [f"--task {other}" for other, found in fits.items() if other in BARE or len(found.left) == fewest]
        if fitting:
            return f"its weights fit {listed(fitting, len(fitting))}"
        if begin := self._wrapped(task):
            return f"all its names begin with {begin}; save the model inside with save_pretrained, which leaves that out"
        unknown = [self.told.unknown] if self.told.unknown else []
        return "; ".join(
            [*unknown, f"weights and config.json must be of one {family.model_type} model, saved with save_pretrained"]
        )

    def _wrapped(self, task: str | None) -> str:
        """What all names of the checkpoint begin with, if a task's model has them all without it; else nothing."""
        parts = zip(*(name.split(".") for name in self.stored), strict=False)
        begin = ".".join(same[0] for same in itertools.takewhile(lambda same: len(set(same)) == 1, parts))
        auto = self.told.family.tasks[task or "feature-extraction"]
        required = self._see(auto).fit.missing
        inner = {form for name in self.stored for form in forms(name.removeprefix(f"{begin}."), self._see(auto).prefix)}
        return f"{begin}." if begin and required and set(required) <= inner else ""

    def _fits(self, task: str) -> bool:
        try:
            return not any(self._wrong(task, asked=True))
        except OnnxfuseError:
            return False


def _reaching(seen: Seen, task: str) -> list[str]:
    """The weights that a model has from nowhere and that a task's outputs depend on."""
    if not set(_shown(task)) <= set(seen.outputs):
        return list(seen.fit.missing)  # it cannot even run
    reached = frozenset().union(*(seen.outputs[name].reached for name in _shown(task)))
    return [name for name in seen.fit.missing if name in reached]


def _inside(left: list[str], seen: Seen) -> list[str]:
    """Those of a checkpoint's weights that may be the encoder's: stored under its prefix, where its others are."""
    if seen.fit.read and all(name.startswith(seen.prefix) for name in seen.fit.read):
        return [name for name in left if name.startswith(seen.prefix)]
    return left


def _shown(task: str) -> tuple[str, ...]:
    """The outputs of a class of ``transformers`` that a task's outputs are made of."""
    return (HIDDEN,) if task in BARE else OUTPUTS[task]


def _described(array: np.ndarray) -> str:
    return f"{list(array.shape)}" if array.dtype.kind == "f" else f"{array.dtype} {list(array.shape)}"


def _outputs(loaded: Loaded) -> Mapping[str, Output]:
    """A model's outputs; none when it cannot run on the family's inputs (multiple choice)."""
    try:
        return loaded.outputs()
    except OnnxfuseError:
        return {}


def _same(theirs: Output, ours: Output, unread: set[str]) -> bool:
    """Whether one output is the other, without depending on the weights that the other's model has not."""
    return (
        not theirs.reached & unread
        and theirs.value.shape == ours.value.shape
        and np.allclose(theirs.value, ours.value, rtol=1e-4, atol=1e-5 * max(1.0, float(np.abs(ours.value).max())))
    )


def listed(names: Sequence[str], most: int = 3) -> str:
    """Names in a sentence; the first few, and how many more."""
    if len(names) > most:
        return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)

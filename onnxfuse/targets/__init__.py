"""Targets: what a runtime runs, and the variants that it runs fastest, as data: one .json file each.

``onnxfuse tune`` measures on a machine and writes such a file; ``--target`` takes a shipped one's name or any file. A target with
operators of its own is a folder: ``target.json``, .py files with lowerings to them (``rewrite.Lowering``) and shape functions
(``rewrite.shapes``), and a shared library that brings them to ONNX Runtime. What such a folder holds runs as code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import onnx

from onnxfuse import plugins
from onnxfuse.errors import UsageError, reason
from onnxfuse.io import door
from onnxfuse.rewrite import Lowering
from onnxfuse.runtime import Settings, runtimes

PRECISIONS: Mapping[str, tuple[str, str]] = {
    "fp32": ("fp32", ""),
    "fp16": ("fp16", ""),
    "bf16": ("bf16", ""),
    "int8": ("int8", "dynamic"),
    "int8-static": ("int8", "static"),
}
"""What a model can be stored in: the type, and of int8 whether each run measures its activations' scales or calibration did."""


def is_int8(precision: str) -> bool:
    """Of a key of ``PRECISIONS``."""
    return PRECISIONS[precision][0] == "int8"


SWITCHES: Mapping[str, tuple[str, ...]] = {
    "qkv": ("merged", "separate"),
    "padding": ("removed", "kept"),
    "precision": tuple(PRECISIONS),
}
"""What a target chooses beside lowerings; the first is what it has when its file does not say."""

NATIVE = "native"
"""The variant of a thing that is an operator of our own library."""

FILE = "target.json"
"""The file that makes a folder a target."""


def lowerings() -> dict[str, dict[str, Lowering]]:
    """For each thing that a target chooses a variant of, the lowering to each variant: ours, and those that others bring."""
    found: dict[str, dict[str, Lowering]] = {}
    for lowering in plugins.find(Lowering, "onnxfuse.fusions").values():
        found.setdefault(lowering.thing, {})[lowering.variant] = lowering
    return found


def choices() -> dict[str, tuple[str, ...]]:
    """The variants of each thing that a target chooses, lowered ones first."""
    return {thing: tuple(variants) for thing, variants in lowerings().items()} | dict(SWITCHES)


def plain() -> dict[str, str]:
    """The variant of each thing for a target whose file does not say: the normal form, which no rules lead to.

    Raises:
        UsageError: rules lead to every variant of a thing.
    """
    chosen = {}
    for thing, variants in lowerings().items():
        plain = next((variant for variant, lowering in variants.items() if not lowering.rules), None)
        if plain is None:
            raise UsageError(f"no lowering of {thing} is without rules, as that to its normal form is; add that one")
        chosen[thing] = plain
    return chosen | {thing: variants[0] for thing, variants in SWITCHES.items()}


@dataclass(frozen=True)
class Target:
    """The operators that an optimized model may use, and what is chosen for each thing.

    Args:
        opset: the standard opset that models are raised to; 0 keeps the exporter's, from 17 to ``highest``.
        why: the measurement behind the choices, in words.
        chosen: the variant of each thing, one of ``choices``.
        highest: the newest opset that its runtimes read.
        session: what ``onnxfuse.load`` opens the models with.
        measured: the measurement itself, as ``tune`` writes it; empty when there is none.
        folder: where its lowerings and libraries are, of a target that brings operators.
    """

    name: str
    opset: int
    why: str
    chosen: Mapping[str, str] = field(default_factory=dict)
    highest: int = 23
    session: Settings = field(default_factory=Settings)
    measured: Mapping[str, Any] = field(default_factory=dict, compare=False)
    folder: Path | None = field(default=None, compare=False)

    def __getitem__(self, thing: str) -> str:
        """The variant of a thing."""
        return self.chosen[thing]

    def choosing(self, **variants: str) -> Target:
        """The target with other variants of some things."""
        return replace(self, chosen={**self.chosen, **variants})

    @property
    def is_own(self) -> bool:
        """Whether it has linear layers or attention as operators of our own library."""
        return NATIVE in self.chosen.values()

    def require_precision(self, precision: str) -> None:
        """Raises UsageError: our own operators do not compute in it."""
        if precision == "fp16" and self.is_own:
            raise UsageError(
                f"--precision fp16: target {self.name} computes in fp32, bf16 and int8; choose bf16, or another target"
            )

    @property
    def libraries(self) -> list[str]:
        """The names of the shared libraries that its operators are in."""
        return [] if self.folder is None else [path.name for path in plugins.libraries(self.folder)]

    def in_use(self) -> AbstractContextManager[None]:
        """Inside, its lowerings are found and its operators run."""
        return nullcontext() if self.folder is None else plugins.using(self.folder)

    def to_json(self) -> dict[str, Any]:
        """What its file holds: the variants beside the rest."""
        content = asdict(self)
        del content["folder"]
        return {
            name: value for key, value in content.items() for name, value in (value if key == "chosen" else {key: value}).items()
        }


SHIPPED = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in SHIPPED.glob("*.json")))
"""The targets that onnxfuse brings."""


def find(name: str) -> Target:
    """The shipped target of that name, the one that a folder of ``ONNXFUSE_PLUGINS`` brings, or the one in that file or folder.

    Raises:
        UsageError: there is none, or the file does not describe a target.
    """
    brought = _brought()
    if name in NAMES:
        return read(SHIPPED / f"{name}.json")
    path = Path(name)
    if path.is_dir():
        return _in_folder(path)
    if name in brought:
        return brought[name]
    if not path.is_file():
        raise UsageError(
            f"no target named {name!r}; choose one of {', '.join([*NAMES, *brought])}, or a file that onnxfuse tune wrote, "
            f"or a folder with a {FILE}"
        )
    return read(path)


@contextmanager
def use(name: str) -> Iterator[Target]:
    """The target of that name, in use inside the block. Raises as ``find``."""
    target = find(name)
    with target.in_use():
        yield target


def _brought() -> dict[str, Target]:
    """The targets in the folders of ``ONNXFUSE_PLUGINS``, by name. Raises UsageError: two of one name."""
    found: dict[str, Target] = {}
    for folder in plugins.folders():
        if (folder / FILE).is_file():
            target = _in_folder(folder)
            if target.name in found or target.name in NAMES:
                raise UsageError(f"{folder / FILE} names its target {target.name!r}, and there is one; give it another name")
            found[target.name] = target
    return found


def _in_folder(folder: Path) -> Target:
    if not (folder / FILE).is_file():
        raise UsageError(f"{folder} is no target: it has no {FILE}")
    door.within(folder / FILE, folder, UsageError)
    with plugins.using(folder):
        return replace(read(folder / FILE), folder=folder.resolve())


OWN = {each.name for each in fields(Target)} - {"chosen", "folder"}
"""What a target's file holds beside variants."""

NEEDED = ("name", "opset", "why")
"""What it must hold."""

HIGHEST = onnx.defs.onnx_opset_version()
"""The newest opset that models can be brought to."""


def read(path: Path) -> Target:
    """A target from its file. Raises UsageError when it does not describe one."""
    known = choices()
    door.require_regular(path)
    try:
        content = door.read_json(path, UsageError)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a JSON {type(content).__name__}, wanted an object")
        rest = {name: value for name, value in content.items() if name not in known}
        if unknown := sorted(set(rest) - OWN):
            raise ValueError(f"it chooses {unknown[0]!r}; what can be chosen is {', '.join(known)}")
        if lacking := [name for name in NEEDED if name not in content]:
            raise ValueError(f"it does not say {', '.join(lacking)}")
        chosen = plain() | {thing: variant for thing, variant in content.items() if thing in known}
        target = Target(**rest | {"chosen": chosen, "session": Settings(**content.get("session", {}))})
    except (ValueError, TypeError, UsageError) as error:
        raise UsageError(
            f"{path} does not describe a target ({reason(error, path)}); write one with: onnxfuse tune MODEL"
        ) from error
    for thing, variant in chosen.items():
        if variant not in known[thing]:
            raise UsageError(f"{path}: {thing} is {variant!r}, wanted one of {', '.join(known[thing])}")
    for opset in ("opset", "highest"):
        if type(number := getattr(target, opset)) is not int or not 0 <= number <= HIGHEST:
            raise UsageError(f"{path}: {opset} is {number!r:.80}, wanted a whole number from 0 to {HIGHEST}")
    if target.session.runtime not in (there := runtimes()):
        raise UsageError(f"{path}: runtime is {target.session.runtime!r:.80}, wanted one of {', '.join(there)}")
    for field_, kind in (("name", str), ("why", str), ("measured", dict)):
        if not isinstance(value := getattr(target, field_), kind):
            raise UsageError(f"{path}: {field_} is {value!r:.80}, wanted a JSON {'text' if kind is str else 'object'}")
    return target

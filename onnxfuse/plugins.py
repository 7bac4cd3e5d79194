"""What is found by being there: what the modules of a package define, and what modules that others bring define.

Others bring a module by an entry point of the group ``onnxfuse`` in their package's metadata, or by the environment variable
``ONNXFUSE_PLUGINS``: paths of .py files and of folders with some, separated as those of PATH are. Shared libraries in such a
folder bring operators to ONNX Runtime. All of this runs as code, so nothing is ever looked for beside a model.

Source: importlib.metadata (entry points), pkgutil.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import pkgutil
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from onnxfuse.errors import UsageError, one_line

GROUP, VARIABLE = "onnxfuse", "ONNXFUSE_PLUGINS"

SHARED = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
"""How shared libraries end here."""

T = TypeVar("T")


def find(kind: type[T], package: str) -> dict[str, T]:
    """The instances of ``kind`` that modules define at their top level, by their ``name``: those of ``package`` in the order of
    the modules' names, then those that others bring.

    An instance counts for the module that defines it first; names that others import are not looked at twice.

    Raises:
        UsageError: two of one name, or a module that others bring cannot be imported.
    """
    return _by_name(kind, (*_own(package), *_others()))


def folders() -> list[Path]:
    """The folders that others bring."""
    return [path for path in _paths() if path.is_dir()]


def libraries(folder: Path | None = None) -> list[Path]:
    """The shared libraries of a folder that others bring, or of all of them."""
    return [path for each in ([folder] if folder else folders()) for path in sorted(each.glob(f"*{SHARED}"))]


@contextmanager
def using(folder: Path) -> Iterator[None]:
    """What a folder brings is found inside the block, also by processes that are started there."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = os.pathsep.join([*filter(None, [before]), str(folder.resolve())])
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _by_name(kind: type[T], modules: Iterable[ModuleType]) -> dict[str, T]:
    found: dict[str, T] = {}
    for module in modules:
        for item in _instances(module, kind):
            name = str(item.name)  # type: ignore[attr-defined]
            if found.setdefault(name, item) is not item:
                raise UsageError(
                    f"{module.__file__} brings a {kind.__name__} named {name!r}, and there is one; give it another name"
                )
    return found


def _instances(module: ModuleType, kind: type[T]) -> Iterator[T]:
    """What a module holds of a kind, by itself or in a tuple."""
    for value in vars(module).values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, kind):
                yield item


@functools.cache
def _own(package: str) -> tuple[ModuleType, ...]:
    """The modules of a package, by name."""
    parent = importlib.import_module(package)
    return tuple(importlib.import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(parent.__path__))


def _others() -> Iterator[ModuleType]:
    """The modules that others bring."""
    yield from _installed()
    for path in _paths():
        yield from map(_from_file, sorted(path.glob("*.py")) if path.is_dir() else [path])


def _paths() -> list[Path]:
    """What the variable names, each once."""
    named = filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    return list(dict.fromkeys(Path(text).resolve() for text in named))


@functools.cache
def _installed() -> tuple[ModuleType, ...]:
    return tuple(
        _guarded(entry.value, functools.partial(importlib.import_module, entry.module)) for entry in entry_points(group=GROUP)
    )


@functools.cache
def _from_file(path: Path) -> ModuleType:
    """The module in a file. Raises UsageError: it is not there, or cannot be imported."""
    if not path.is_file() or path.suffix != ".py":
        wrong = "is no .py file and no folder" if path.exists() else "is not there"
        raise UsageError(f"the plugin {path} {wrong}; correct {VARIABLE}")
    name = f"onnxfuse_plugin_{zlib.crc32(str(path).encode()):08x}_{path.stem}"  # one of its own for files of one name
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look their module up
    try:
        _guarded(str(path), functools.partial(spec.loader.exec_module, module))
    except UsageError:
        del sys.modules[name]
        raise
    return module


def _guarded(where: str, load: Callable[[], T]) -> T:
    """What ``load`` gives. A stranger's module may fail in any way, and may try to end the process. Raises UsageError."""
    try:
        return load()
    except (Exception, SystemExit) as error:
        raise UsageError(f"the plugin {where} cannot be imported: {type(error).__name__}: {one_line(error)}") from error

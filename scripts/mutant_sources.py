"""The files to mutate, and a mutant put into every place that holds the old code."""

from __future__ import annotations

import ast
import gc
import importlib
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

from mutant_reach import Lines
from mutants import Mutant

ROOT = Path(__file__).resolve().parent.parent
FILES = (
    "fusions/*.py",
    "onnxfuse/normalize/*.py",
    "onnxfuse/rewrite/*.py",
    "onnxfuse/rewrite/shapes/*.py",
    "onnxfuse/quantization/patches.py",
    "onnxfuse/quantization/smooth.py",
    "onnxfuse/verify/tolerances.py",
    "onnxfuse/verify/expected.py",
    "onnxfuse/verify/difference.py",
    "onnxfuse/verify/parity.py",
    "onnxfuse/verify/inputs.py",
    "onnxfuse/verify/roles.py",
    "onnxfuse/verify/positions.py",
    "onnxfuse/verify/grid.py",
    "onnxfuse/pipeline/optimize.py",
    "onnxfuse/pipeline/quantize.py",
    "onnxfuse/pipeline/run.py",
    "onnxfuse/pipeline/run_steps.py",
)


class Sources:
    """The files to mutate: their trees, their modules, and the functions that live in this process."""

    def __init__(self) -> None:
        paths = [path for pattern in FILES for path in sorted(ROOT.glob(pattern))]
        self.trees = {str(path.relative_to(ROOT)): ast.parse(path.read_text(encoding="utf-8")) for path in paths}
        self.modules = {file: importlib.import_module(_module_of(file)) for file in self.trees}
        self.names = {str(module.__file__): file for file, module in self.modules.items()}
        self._functions: dict[tuple[str, str, int], list[FunctionType]] = defaultdict(list)
        for thing in gc.get_objects():
            if type(thing) is FunctionType and thing.__code__.co_filename in self.names:
                code = thing.__code__
                self._functions[self.names[code.co_filename], code.co_qualname, code.co_firstlineno].append(thing)

    def mention(self, mutant: Mutant) -> Lines:
        """The lines that a mutant changes, or that read the constant it changes."""
        if not mutant.names:
            return {mutant.file: set(mutant.lines)}
        word = re.compile(rf"\b({'|'.join(mutant.names)})\b")
        texts = {file: (ROOT / file).read_text(encoding="utf-8").splitlines() for file in self.trees}
        return {file: {at for at, text in enumerate(lines, 1) if word.search(text)} for file, lines in texts.items()}

    def install(self, mutant: Mutant) -> None:
        """Change this process; nothing undoes it."""
        mutant.apply()
        tree, module = ast.fix_missing_locations(self.trees[mutant.file]), self.modules[mutant.file]
        if mutant.names:
            self._rebind(mutant, vars(module))
        elif mutant.default:
            self._default(mutant, vars(module))
        else:
            new = {(code.co_qualname, code.co_firstlineno): code for code in _codes(compile(tree, str(module.__file__), "exec"))}
            for function in mutant.functions:
                for holder in self._functions[mutant.file, *function]:
                    holder.__code__ = new[function]

    def _default(self, mutant: Mutant, namespace: dict[str, Any]) -> None:
        arguments = mutant.statement.args  # type: ignore[union-attr]
        for function in self._functions[mutant.file, *mutant.functions[-1]]:
            function.__defaults__ = tuple(_value(node, namespace) for node in arguments.defaults) or None
            function.__kwdefaults__ = {
                argument.arg: _value(node, namespace)
                for argument, node in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
                if node is not None
            }

    def _rebind(self, mutant: Mutant, namespace: dict[str, Any]) -> None:
        """A constant of a module, in all modules that imported it; or the default of a dataclass's field."""
        changed = dict(namespace)
        exec(compile(ast.Module([mutant.statement], []), "<mutant>", "exec"), changed)
        for name in mutant.names:
            new = changed[name]
            if mutant.function:
                owner = namespace[mutant.function]
                start, code = owner.__init__, owner.__init__.__code__
                fields = code.co_varnames[code.co_argcount - len(start.__defaults__) : code.co_argcount]
                start.__defaults__ = tuple(
                    new if field == name else old for field, old in zip(fields, start.__defaults__, strict=True)
                )
                continue
            old = namespace[name]
            for module in list(sys.modules.values()):
                if getattr(module, "__name__", "").startswith(("onnxfuse", "tests")) and vars(module).get(name) is old:
                    setattr(module, name, new)


def _module_of(file: str) -> str:
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.startswith("onnxfuse") else f"onnxfuse.{name}"


def _codes(code: Any) -> Iterator[Any]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            yield from _codes(constant)


def _value(node: ast.expr, namespace: dict[str, Any]) -> Any:
    return eval(compile(ast.fix_missing_locations(ast.Expression(node)), "<mutant>", "eval"), namespace)

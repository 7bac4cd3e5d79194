"""What ``mutate_guards`` changes: one condition, guard, comparison, default or number of a source file at a time."""

from __future__ import annotations

import ast
import copy
import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

SWAPPED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
"""What a comparison becomes: the bound belongs to the other side, or equal means different."""

GUARD = re.compile(r"(^|\.)_?(need|require)")
"""Calls for the sake of what they raise, by name; so is a call that is given the match and whose result nobody uses."""

LONGEST = 90
"""Characters of code in a mutant's name."""

FUNCTIONS = (ast.FunctionDef, ast.Lambda)
NUMBERS = (int, float)
USED_UP = (ast.comprehension, ast.Starred)


@dataclass(frozen=True)
class Scope:
    """Where a node stands: the names around it, the functions (qualified name, first line), and its statement in its block."""

    names: tuple[str, ...] = ()
    functions: tuple[tuple[str, int], ...] = ()
    block: list[ast.stmt] = field(default_factory=list)
    at: int = 0

    @property
    def statement(self) -> ast.stmt:
        return self.block[self.at]

    def inside(self, node: ast.AST) -> Scope:
        """The scope of what ``node`` holds."""
        if isinstance(node, ast.ClassDef):
            return replace(self, names=(*self.names, node.name))
        if not isinstance(node, FUNCTIONS):
            return self
        names = (*self.names, getattr(node, "name", "<lambda>"))
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", ()))])
        return replace(self, names=(*names, "<locals>"), functions=(*self.functions, (".".join(names), first)))


@dataclass(frozen=True)
class Mutant:
    """One change: ``text`` says what, ``lines`` where, ``apply`` makes it in the tree.

    ``functions`` are those that hold it, from the outside in; ``default`` says that it is a default of the innermost one.
    ``names`` are those of a constant of the module, or of a class's field.
    """

    file: str
    function: str
    text: str
    line: int
    lines: range
    apply: Callable[[], None]
    functions: tuple[tuple[str, int], ...] = ()
    statement: ast.stmt | None = None
    names: tuple[str, ...] = ()
    default: bool = False

    @property
    def key(self) -> str:
        """Names it as long as the code reads the same, wherever it moves."""
        return f"{self.file}: {self.function}: {self.text}"


def of_file(file: str, tree: ast.Module) -> list[Mutant]:
    """Every change of one file; equal texts of one function are numbered."""
    found: dict[str, Mutant] = {}
    for mutant in _find(file, tree, Scope()):
        text, count = mutant.text, 1
        while mutant.key in found:
            count += 1
            mutant = replace(mutant, text=f"{text} #{count}")
        found[mutant.key] = mutant
    return list(found.values())


def _find(file: str, node: ast.AST, scope: Scope) -> Iterator[Mutant]:
    for name, value in ast.iter_fields(node):
        for at, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or _left_alone(node, name, at):
                continue
            here = replace(scope, block=value, at=at) if isinstance(child, ast.stmt) else scope
            put = functools.partial(_put, node, name, at)
            if here.functions:
                for text, new in _changes(node, name, child):
                    yield Mutant(
                        file,
                        _called(here.names),
                        text,
                        child.lineno,
                        _header(here.statement),
                        functools.partial(_apply, here, put, new),
                        here.functions,
                    )
            elif isinstance(child, (ast.Assign, ast.AnnAssign)):
                yield from _numbers(file, child, here)
            if isinstance(child, ast.FunctionDef):
                yield from _defaults(file, child, here.inside(child))
            yield from _find(file, child, here.inside(child))


def _called(names: tuple[str, ...]) -> str:
    return ".".join(name for name in names if name != "<locals>")


def _left_alone(node: ast.AST, name: str, at: int | None) -> bool:
    """Types, what is asserted for their sake, and what is said to people: no test can judge them."""
    message = isinstance(node, ast.Call) and name == "args" and bool(at) and bool(GUARD.search(ast.unparse(node.func)))
    return (
        message
        or isinstance(node, (ast.Assert, ast.JoinedStr, ast.Raise))
        or name in ("annotation", "returns", "decorator_list", "args" if isinstance(node, FUNCTIONS) else "")
    )


def _header(statement: ast.stmt) -> range:
    """The lines of a statement, without the block it opens."""
    body = getattr(statement, "body", None) or getattr(statement, "cases", None)
    end = statement.end_lineno if body is None else getattr(body[0], "lineno", statement.lineno + 1) - 1
    return range(statement.lineno, max(end or 0, statement.lineno) + 1)


def _changes(parent: ast.AST, name: str, node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """What may stand in place of a node, and how to call that; None takes the statement out."""
    text = _short(node)
    if (isinstance(parent, (ast.If, ast.IfExp)) and name == "test") or name in ("ifs", "guard"):
        yield f"always `{text}`", ast.Constant(True)
        yield f"never `{text}`", ast.Constant(False)
    match node:
        case ast.Expr(value=ast.Call() as call) if GUARD.search(ast.unparse(call.func)) or any(
            isinstance(argument, ast.Name) and argument.id == "match" for argument in call.args
        ):
            yield f"without `{text}`", None
        case ast.Raise() if not (isinstance(parent, ast.If) and parent.body == [node] and not parent.orelse):  # else: never
            yield f"without `{text}`", None
        case ast.BoolOp(op=op, values=values) if not _names_something(values[-1]):
            for at, operand in enumerate(values):
                rest = [*values[:at], *values[at + 1 :]]
                yield f"without `{_short(operand)}`", rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"`{_short(operand)}` for `{text}`", operand
        case ast.Compare(left=left, ops=ops, comparators=others):
            for at, op in enumerate(ops):
                if type(op) in SWAPPED:
                    new = ast.Compare(left, [*ops[:at], SWAPPED[type(op)](), *ops[at + 1 :]], others)
                    yield f"`{_short(new)}` for `{text}`", new


def _short(node: ast.AST) -> str:
    text = ast.unparse(node).splitlines()[0] if isinstance(node, (ast.expr, ast.Expr, ast.Raise)) else ""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _names_something(operand: ast.expr) -> bool:
    """Whether a BoolOp's last operand is what something without a name is called."""
    return isinstance(operand, ast.Constant) and isinstance(operand.value, str)


def _numbers(file: str, statement: ast.Assign | ast.AnnAssign, scope: Scope) -> Iterator[Mutant]:
    """Each number of a module's or class's constant, larger and smaller. What builds rules or sets is used up at import."""
    if any(isinstance(node, USED_UP) or getattr(node, "id", "") == "Rule" for node in ast.walk(statement)):
        return
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    names = tuple(node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
    for node in ast.walk(statement.value) if statement.value is not None else ():
        for new in _others(node):
            text = f"{', '.join(names)} with {_said(new)} for {_said(node.value)}"
            yield Mutant(
                file,
                _called(scope.names),
                text,
                node.lineno,
                _header(statement),
                functools.partial(setattr, node, "value", new),
                (),
                statement,
                names,
            )


def _defaults(file: str, function: ast.FunctionDef, scope: Scope) -> Iterator[Mutant]:
    arguments = function.args
    named = [
        *zip([*arguments.posonlyargs, *arguments.args][::-1], arguments.defaults[::-1], strict=False),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    for argument, default in named:
        for new in _others(default):
            text = f"{argument.arg} = {_said(new)} for {_said(default.value)}"
            yield Mutant(
                file,
                _called(scope.names),
                text,
                default.lineno,
                range(function.lineno, (function.end_lineno or 0) + 1),
                functools.partial(setattr, default, "value", new),
                scope.functions,
                function,
                (),
                True,
            )


def _others(node: ast.AST | None) -> list[int | float]:
    """What a constant may be instead: a truth turned, a number by a factor."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, NUMBERS):
        return []
    if isinstance(node.value, bool):
        return [not node.value]
    factor = 10 if isinstance(node.value, float) else 2
    return [1] if node.value == 0 else [node.value * factor, node.value / factor if factor == 10 else node.value // factor]


def _said(number: int | float) -> str:
    return f"{number:g}" if isinstance(number, float) else str(number)


def _put(parent: ast.AST, name: str, at: int | None, new: ast.AST) -> None:
    if at is None:
        setattr(parent, name, new)
    else:
        getattr(parent, name)[at] = new


def _apply(scope: Scope, put: Callable[[ast.AST], None], new: ast.AST | None) -> None:
    """Change the tree. The old statement stays as dead code: a closure must keep its free variables."""
    dead = ast.If(ast.Constant(0), [copy.deepcopy(scope.statement)], [])
    if new is not None:
        put(new)
    scope.block[scope.at : scope.at + 1] = [dead] if new is None else [dead, scope.statement]

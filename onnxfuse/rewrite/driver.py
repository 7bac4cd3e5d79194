"""Apply rules to a graph until none fires, and keep a trace of what happened and what almost did."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx_ir as ir

from onnxfuse.errors import ModelError, OnnxfuseError, one_line
from onnxfuse.rewrite import pattern
from onnxfuse.rewrite.analysis import Analysis
from onnxfuse.rewrite.lines import Line
from onnxfuse.rewrite.proof import Prover, Verdict
from onnxfuse.rewrite.rule import Match, NoMatch, Op, Rule

CONSENT = "the guard's consent"
"""What a miss wanted when the whole pattern matched."""

SWEEPS = 50
"""Rules that still fire after this many sweeps undo each other: they are left out from then on, and named in the trace."""

OFTEN = 10
"""So are those that fire this often for each node there was: what such a rule builds holds what it looks for."""


@dataclass(frozen=True)
class Application:
    """One rewrite: the rule, the value whose producer was replaced, the nodes that went and came."""

    rule: str
    value: str
    before: tuple[Line, ...]
    after: tuple[Line, ...]


Listener = Callable[[Application], None]


@dataclass
class Trace:
    """What happened to a model, in order, and for each rule its nearest miss.

    ``proven`` counts the rewrites whose local proof held, and ``proof_seconds`` is what all proofs took. ``unproven`` and
    ``rejected`` say by rule why a proof could not be run, and what was found wrong and therefore not done. ``endless`` are rules
    that undid each other and were stopped. ``unfolded`` says by value why a constant could not be computed, and ``folded_bytes``
    counts what the others took. ``listener`` is told of each rewrite after it is made. ``passes`` counts by name how often a pass
    modified the model.
    """

    applications: list[Application] = field(default_factory=list)
    misses: dict[str, dict[str, Any]] = field(default_factory=dict)
    proven: int = 0
    proof_seconds: float = 0.0
    unproven: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    endless: set[str] = field(default_factory=set)
    unfolded: dict[str, str] = field(default_factory=dict)
    folded_bytes: int = 0
    passes: Counter[str] = field(default_factory=Counter)
    listener: Listener | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """A summary for onnxfuse.json: applications of each rule, and the nearest miss of each."""
        return {
            "rules": dict(Counter(a.rule for a in self.applications)),
            "passes": dict(self.passes),
            "proven": self.proven,
            "unproven": self.unproven,
            "rejected": self.rejected,
            "endless": sorted(self.endless),
            "unfolded": self.unfolded,
            "misses": self.misses,
        }

    def record(self, name: str, value: str, before: Iterable[Line], after: Iterable[ir.Node]) -> None:
        """Keep a rewrite by a rule or pass of that name, and tell the listener."""
        self.applications.append(Application(name, value, tuple(before), tuple(map(Line.of, after))))
        if self.listener is not None:
            self.listener(self.applications[-1])

    @contextmanager
    def proving(self) -> Iterator[None]:
        """Count the seconds of a proof."""
        start = time.perf_counter()
        yield
        self.proof_seconds += time.perf_counter() - start

    def judge(self, name: str, where: str, verdict: Verdict) -> None:
        """Keep what became of a proof."""
        if verdict.proven:
            self.proven += 1
        elif verdict.proven is None:
            self.unproven.setdefault(name, verdict.reason)
        else:
            self.rejected.setdefault(name, f"at {where}: {verdict.reason}")

    def record_miss(self, rule: Rule, miss: pattern.Miss) -> None:
        known = self.misses.get(rule.name)
        if known is None or miss.matched > known["matched"]:
            self.misses[rule.name] = asdict(miss)


def rewrite(model: ir.Model, rules: Sequence[Rule], analysis: Analysis, trace: Trace, prover: Prover | None = None) -> int:
    """Apply ``rules`` to the main graph until nothing changes. Earlier rules are tried first at a node.

    Args:
        analysis: of this graph; they stay true, since every rule keeps what values mean.
        trace: receives every application and the nearest miss of each rule.
        prover: proves each rewrite before it is made; one that fails is not made. None proves nothing.

    Returns:
        How many rewrites were made.
    """
    by_root: dict[tuple[str, str], list[Rule]] = defaultdict(list)
    for rule in rules:
        if rule.name not in trace.endless:
            by_root[rule.pattern.type, rule.pattern.domain].append(rule)
    total, most = 0, SWEEPS + OFTEN * len(model.graph)
    for _ in range(SWEEPS):
        fired = _sweep(model, by_root, analysis, trace, prover, most - total)
        total += len(fired)
        if not fired:
            return total
        if total >= most:
            break
    trace.endless.update(fired)
    return total


def _sweep(
    model: ir.Model,
    by_root: Mapping[tuple[str, str], Sequence[Rule]],
    analysis: Analysis,
    trace: Trace,
    prover: Prover | None,
    most: int,
) -> list[str]:
    """Try every rule at every node once, new ones included; the names of those that fired, ``most`` of them."""
    fired: list[str] = []
    for node in model.graph:
        if len(fired) >= most:
            break
        for rule in by_root.get((node.op_type, node.domain), ()):
            if apply_at(model, rule, node, analysis, trace, prover):
                fired.append(rule.name)
                break
    return fired


def nearest_miss(rule: Rule, root: ir.Node, analysis: Analysis) -> tuple[pattern.Miss, tuple[ir.Node, ...]] | None:
    """How far one rule comes at one node, and the nodes that it matched there; None when not even the root fits."""
    if not _read(rule, root):
        return None
    attempt = pattern.Attempt(rule.pattern, root, analysis.opset)
    for found in attempt:
        match = Match(found, root, analysis, rule.pattern.output)
        try:
            _need_private(rule, match)
            with _named(rule, match):
                rule.guard(match)
        except NoMatch as refusal:
            where = pattern.name_of(refusal.value if refusal.value is not None else match.output)
            return pattern.Miss(len(found.nodes), CONSENT, refusal.reason, where), tuple(match.nodes)
    return None if attempt.miss is None or not attempt.miss.matched else (attempt.miss, attempt.nodes)


def apply_at(model: ir.Model, rule: Rule, root: ir.Node, analysis: Analysis, trace: Trace, prover: Prover | None = None) -> bool:
    """Try one rule at one node; rewrite there when it matches and its guard agrees."""
    if not _read(rule, root):
        return False
    attempt = pattern.Attempt(rule.pattern, root, analysis.opset)
    for found in attempt:
        match = Match(found, root, analysis, rule.pattern.output)
        try:
            _need_private(rule, match)
            with _named(rule, match):
                learned = rule.guard(match) or {}
        except NoMatch as refusal:
            where = pattern.name_of(refusal.value if refusal.value is not None else match.output)
            trace.record_miss(rule, pattern.Miss(len(found.nodes), CONSENT, refusal.reason, where))
            continue
        op = Op(model.graph, pattern.name_of(match.output))
        with _named(rule, match):
            built = rule.after(op, **match.bindings, **learned)
            if not isinstance(built, ir.Value):
                raise TypeError(f"after returns a {type(built).__name__}, wanted the new value")
        if prover is not None and not _proven(prover, rule, match, op, built, trace):
            continue
        value, before = pattern.name_of(match.output), [Line.of(node) for node in match.nodes]
        replace(model.graph, root, op, built, rule.pattern.output)  # names what was built
        trace.record(rule.name, value, before, op.nodes)
        return True
    if attempt.miss is not None and attempt.miss.matched:
        trace.record_miss(rule, attempt.miss)
    return False


@contextmanager
def _named(rule: Rule, match: Match) -> Iterator[None]:
    """What goes wrong in a rule's own functions names the rule. Raises ModelError."""
    try:
        yield
    except (NoMatch, OnnxfuseError):
        raise
    except Exception as error:
        seen = f"{pattern.name_of(match.output)}: {type(error).__name__}: {one_line(error)}"
        raise ModelError(f"rule {rule.name!r} fails at {seen}; leave it out with --without {rule.name}, and report it") from error


def _read(rule: Rule, root: ir.Node) -> bool:
    """Whether the node has the output that the rule replaces, and someone reads it: a part of a Split may have gone already."""
    at = rule.pattern.output
    return at < len(root.outputs) and bool(root.outputs[at].uses() or root.outputs[at].is_graph_output())


def _proven(prover: Prover, rule: Rule, match: Match, op: Op, built: ir.Value, trace: Trace) -> bool:
    """Whether the rewrite may be made: its proof held, or could not be run."""
    with trace.proving():
        verdict = prover.prove(rule, match.nodes, match.output, op, built, match.read)
    trace.judge(rule.name, pattern.name_of(match.output), verdict)
    if verdict.proven is False:
        forget(op)
    return verdict.proven is not False


def forget(op: Op) -> None:
    """The graph's values must not remember a replacement that was not made."""
    for node in op.nodes:
        for at in range(len(node.inputs)):
            node.replace_input_with(at, None)


def _need_private(rule: Rule, match: Match) -> None:
    """Refuse when a value inside the match is read elsewhere, is an output, is captured by a subgraph, or is an operand, too."""
    if rule.shared:
        return
    inside = set(match.nodes)
    given = [value for value in match.bindings.values() if isinstance(value, ir.Value)]
    for node in match.nodes:
        for value in node.outputs:
            if node is match.root:
                continue
            if value.is_graph_output():
                raise NoMatch(f"{pattern.name_of(value)} is also a graph output", value)
            if any(user not in inside for user, _ in value.uses()):
                raise NoMatch(f"{pattern.name_of(value)} is also read elsewhere", value)
            if value in given:  # the replacement reads what it stands for, which would stay: twice the work
                raise NoMatch(f"{pattern.name_of(value)} is also an operand", value)


def replace(graph: ir.Graph, root: ir.Node, op: Op, built: ir.Value, output: int = 0) -> None:
    """Put the nodes of ``op`` where ``root`` stood; readers and graph outputs of its ``output`` read ``built``; the dead go."""
    for initializer in op.initializers:
        graph.register_initializer(initializer)
    old = root.outputs[output]
    name = old.name
    old.name = f"{name}/replaced"
    if op.nodes:
        graph.insert_after(root, op.nodes)
        built.name, built.type = name, old.type
    if old.is_graph_output() and not op.nodes:  # a graph output keeps its name: one Identity carries it
        carrier = ir.node("Identity", [built])
        carrier.outputs[0].name = name
        carrier.outputs[0].type, carrier.outputs[0].shape = old.type, old.shape
        graph.insert_after(root, carrier)
        built = carrier.outputs[0]
    elif old.is_graph_output():
        built.type, built.shape = old.type, old.shape
    ir.convenience.replace_all_uses_with(old, built, replace_graph_outputs=True)
    remove_dead(graph, root)


def remove_dead(graph: ir.Graph, root: ir.Node) -> None:
    """Remove ``root`` and what fed only it, as far as nobody else reads it."""
    queue = [root]
    while queue:
        node = queue.pop()
        if node.graph is None or any(value.uses() or value.is_graph_output() for value in node.outputs):
            continue
        feeders = [value.producer() for value in node.inputs if value is not None]
        graph.remove(node, safe=True)
        queue += [feeder for feeder in feeders if feeder is not None]

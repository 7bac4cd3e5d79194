"""The driver: rules whose root is another output than the first of its node."""

import pytest

from onnxfuse.rewrite import Rule, Trace, rewrite
from onnxfuse.rewrite.driver import nearest_miss
from tests.conftest import assert_same, facts_of, ops, parse


def cut(at: int) -> Rule:
    """A Slice in place of one part of a Split."""
    def before(op, x, axis, num_outputs):
        return op.Split(x, axis=axis, num_outputs=num_outputs, _output=at)

    def after(op, x, **_):
        return op.Slice(x, op.constant([2 * at], "start"), op.constant([2 * at + 2], "end"), op.constant([1], "axis"))
    return Rule("part", before, lambda match: None, after, shared=True, exact=True)


TEXT = "g (float[B,6] x) => ({}) {{ a, b, c = Split<axis = 1, num_outputs = 3>(x)  y = Sub(b, a)  {} }}"


@pytest.mark.parametrize("at", [0, 1])
def test_a_rule_replaces_the_output_that_its_pattern_names(at):
    before, after = parse(TEXT.format("float[B,2] y", "")), parse(TEXT.format("float[B,2] y", ""))
    trace = Trace()
    assert rewrite(after, [cut(at)], facts_of(after), trace) == 1  # and not again: nobody reads that part any more
    assert [application.value for application in trace.applications] == ["ab"[at]]
    assert ops(after) == ["Slice", "Split", "Sub"]
    assert_same(before, after, {"B": 3})


def test_a_part_that_nobody_reads_is_left_alone():
    model = parse(TEXT.format("float[B,2] y", ""))
    assert rewrite(model, [cut(2)], facts_of(model), Trace()) == 0
    root = next(node for node in model.graph if node.op_type == "Split")
    assert nearest_miss(cut(2), root, facts_of(model)) is None


def test_a_part_that_is_not_there_is_left_alone():
    model = parse("g (float[B,6] x) => (float[B,3] y) { a, y = Split<axis = 1, num_outputs = 2>(x) }")
    assert rewrite(model, [cut(2)], facts_of(model), Trace()) == 0
    assert nearest_miss(cut(2), next(iter(model.graph)), facts_of(model)) is None


def test_a_part_that_is_a_graph_output_keeps_its_name():
    before, after = (parse(TEXT.format("float[B,2] y, float[B,2] c", "")) for _ in range(2))
    assert rewrite(after, [cut(2)], facts_of(after), Trace()) == 1
    assert [value.name for value in after.graph.outputs] == ["y", "c"]
    assert_same(before, after, {"B": 3})

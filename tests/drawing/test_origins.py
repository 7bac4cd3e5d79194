"""What a trace says of the nodes of both graphs."""

from onnxfuse.drawing.origins import origins
from onnxfuse.rewrite.driver import Application
from onnxfuse.rewrite.lines import Line


def line(op: str, output: str, *inputs: str) -> Line:
    return Line(op, inputs, (output,))


def made(rule: str, value: str, before: list[Line], after: list[Line]) -> Application:
    return Application(rule, value, tuple(before), tuple(after))


def test_what_is_fused_in_two_steps_is_of_the_last_rule():
    steps = [
        made("division", "c", [line("Div", "c", "x")], [line("Mul", "c", "x")]),
        made("gelu", "e", [line("Mul", "c", "x"), line("Erf", "d", "c"), line("Mul", "e", "d")], [line("Gelu", "e", "x")]),
    ]
    found = origins(steps)
    assert found.made == {"e": "gelu"}
    assert found.taken == {"c": "gelu", "d": "gelu", "e": "gelu"}
    assert found.became == {"c": "e", "d": "e", "e": "e"}


def test_an_operator_that_stays_is_of_the_rule_that_made_it():
    """Merged projections are read by the same Attention."""
    attention = line("Attention", "y", "q", "k")
    steps = [
        made("attention", "y", [line("Softmax", "s", "q"), line("MatMul", "y", "s")], [attention]),
        made(
            "merged",
            "y",
            [line("MatMul", "q", "x"), line("MatMul", "k", "x"), attention],
            [line("MatMul", "m", "x"), line("Attention", "y", "m")],
        ),
    ]
    found = origins(steps)
    assert found.made == {"y": "attention", "m": "merged"}
    assert found.taken == {"s": "attention", "y": "attention", "q": "merged", "k": "merged"}


def test_what_goes_altogether_is_of_its_rule():
    found = origins([made("noop", "y", [line("Reshape", "y", "x")], [])])
    assert (found.made, found.taken) == ({}, {"y": "noop"})


def test_what_only_reads_something_else_is_as_it_was():
    """As in the removal of padding, which is one application over the whole graph."""
    found = origins(
        [made("unpad", "the whole graph", [line("Relu", "y", "x")], [line("Gather", "g", "x"), line("Relu", "y", "g")])]
    )
    assert (found.made, found.taken) == ({"g": "unpad"}, {})

"""The order of passes, and what becomes of a model when one is left out."""

import numpy as np
import pytest

from onnxfuse import optimizer
from onnxfuse.errors import UsageError
from onnxfuse.io import onnx_file
from onnxfuse.optimizer import NEEDED, fuse, ordered, rule_names
from onnxfuse.rewrite import Fusion
from onnxfuse.rewrite.passes import Context, Repeat, Result, Rules, names
from onnxfuse.runtime.sessions import compute
from onnxfuse.targets import find
from tests.conftest import assert_same
from tests.layer import RIGHT, Case

PASSES = names((*optimizer.normal_form(0), *optimizer.fusing(()), *optimizer.finishing((), (), (), (), zeros=False)))
RULES = {rule.name for rule in optimizer.NORMAL_RULES}


@pytest.mark.parametrize("name", sorted(set(PASSES) - RULES - NEEDED))
@pytest.mark.parametrize("target", ["cpu", "standard"])
def test_a_pass_that_is_left_out_leaves_what_the_model_computes(name, target):
    after = Case("plain", {}).build()
    trace = fuse(after, find(target), without=frozenset({name}), prove=True).trace
    assert name not in trace.passes
    assert not trace.rejected
    assert_same(Case("plain", {}).build(), after, {"B": 2, "S": 5}, mask=np.array([RIGHT, RIGHT]))


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_what_a_target_needs_cannot_be_left_out(name):
    with pytest.raises(UsageError, match=f"{name} cannot be left out: the model would not be one that target 'cpu' runs"):
        fuse(Case("plain", {}).build(), find("cpu"), without=frozenset({name}))
    assert name not in rule_names()


def test_a_rule_is_not_used_alone_and_left_out_at_once():
    with pytest.raises(UsageError, match=r"^gelu cannot be used alone and left out at once"):
        fuse(Case("plain", {}).build(), find("cpu"), only=frozenset({"gelu", "attention"}), without=frozenset({"gelu"}))


def test_fusions_stand_behind_those_that_they_come_after():
    late, early, other = Fusion("a", (), after=("c",)), Fusion("c", ()), Fusion("b", ())
    assert ordered([late, other, early]) == [other, early, late]
    with pytest.raises(UsageError, match="fusion 'x' comes after y, which is not there or comes after it"):
        ordered([Fusion("x", (), after=("y",)), Fusion("y", (), after=("x",))])


def test_passes_repeat_until_none_has_anything_left_to_do():
    class Countdown:
        def __init__(self, name, times):
            self.name, self.times, self.calls = name, times, 0

        def apply(self, model, context):
            self.calls += 1
            self.times -= 1
            return Result(self.times >= 0)

    first, second = Countdown("first", 3), Countdown("second", 1)
    context = Context(compute)
    assert context.apply(Repeat((first, second)), None).modified
    assert (first.calls, second.calls) == (4, 3)
    assert context.trace.passes == {"first": 3, "second": 1}
    assert not context.apply(Repeat((first, second)), None).modified

    inner, outer = Countdown("inner", 1), Countdown("outer", 0)
    context.apply(Repeat((Repeat((inner,)), outer)), None)
    assert (inner.calls, outer.calls) == (2, 1)  # what has just settled is not asked again


def test_names_are_those_of_passes_and_of_their_rules():
    assert names((Repeat((Rules("some", optimizer.NORMAL_RULES[:1]),)),)) == ["some", optimizer.NORMAL_RULES[0].name]


def test_fusing_tells_how_much_is_done(bert_export):
    model, told = onnx_file.load(bert_export / "export" / "model.onnx"), []
    fuse(model, find("cpu"), tell=lambda done, step: told.append(done))
    assert told == sorted(told)
    assert told[0] == 0
    assert 0.5 < told[-1] < 1

"""Every rule by itself, on random splices: whatever it does to a graph, the graph computes the same."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxfuse import catalog, optimizer, targets
from onnxfuse.errors import ModelError
from onnxfuse.normalize import structure
from onnxfuse.normalize.opset import convert
from onnxfuse.optimizer import NORMAL_RULES
from onnxfuse.rewrite import Analysis, Rule, Trace, rewrite
from onnxfuse.rewrite.fusion import FUSE, HOIST
from onnxfuse.runtime.sessions import open_session, run
from tests.conftest import clean
from tests.layer import LEFT, RIGHT, close
from tests.splices import TOLERANCE, splice

FUSIONS = [fusion for fusion in optimizer.ordered(catalog.fusions().values()) if fusion.stage == FUSE]
FUSING = tuple(rule for fusion in FUSIONS for rule in fusion.rules)
HOISTING = tuple(rule for fusion in catalog.fusions().values() if fusion.stage == HOIST for rule in fusion.rules)
LOWERING = tuple(rule for thing in targets.lowerings().values() for lowering in thing.values() for rule in lowering.rules)
RULES = (*NORMAL_RULES, *FUSING, *HOISTING, *LOWERING)
MISREAD = {"bias-in-linear"}
"""Only ``ablate`` uses it: ONNX Runtime 1.31 infers wrong shapes from its Reshape in some graphs and does not open them."""

NAMES = list(dict.fromkeys(rule.name for rule in RULES))


def prepared(seed: int, first: tuple[Rule, ...]) -> tuple[ir.Model, Analysis] | None:
    """A splice at opset 23, after the rules that bring it to where a fusion or a form looks."""
    model = splice(seed)
    if model is None:
        return None
    clean(model)
    convert(model, 23)
    analysis = Analysis({"": 23})
    analysis.scan(model.graph)
    rewrite(model, first, analysis, Trace())
    return model, analysis


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=2, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1_000_000))
def test_a_rule_alone_changes_nothing(name, seed):
    rules = [rule for rule in RULES if rule.name == name]
    first = () if rules[0] in NORMAL_RULES else NORMAL_RULES if rules[0] in FUSING else (*NORMAL_RULES, *FUSING)
    before, after = prepared(seed, first), prepared(seed, first)
    if before is None or after is None:
        return
    feeds = {"x": np.random.default_rng(seed).standard_normal((2, 5, 16)).astype(np.float32), "mask": np.array([RIGHT, LEFT])}
    try:
        wanted = outputs(before[0], feeds)
    except ModelError:
        return
    rewrite(after[0], rules, after[1], Trace())
    try:
        got = outputs(after[0], feeds)
    except ModelError:
        assert name in MISREAD
        return
    for output, array in wanted.items():
        if np.isfinite(array).all():
            assert close(array, got[output], TOLERANCE)


def outputs(model: ir.Model, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Without the loader's own rewrites."""
    structure.tidy(model)
    return run(open_session(ir.to_proto(model).SerializeToString(), optimize=False), feeds)

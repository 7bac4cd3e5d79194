"""Padding removal where a row has several choices: a mask [A,C,S] that is reshaped to one row for each sequence."""

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.config import OptimizeConfig
from onnxfuse.fusions import unpad as module
from onnxfuse.fusions.unpad import Padding, RemovePadding, unpad
from onnxfuse.pipeline.explain import padding_of
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.rewrite.passes import Context
from onnxfuse.runtime.sessions import compute, infer, open_session, run
from onnxfuse.verify.masks import MASKS, by_choice, mask_of
from tests.conftest import analysis_of, fill, ops, parse
from tests.fusions.test_unpad import NODES

CONSTANTS = """int64[1] one = {1}, int64[1] any = {-1}, int64[3] widths = {8, 8, 8}, int64 first = {0}, float zero = {0.0},
    float low = {-3.4e38}, int64[3] column = {-1, 1, 0}, int64[4] heads = {0, 1, 1, -1}, int64[1] second = {1}"""

MASKED = {
    "with sizes of one between": "r0 = Reshape(attention_mask, column)  r1 = Reshape(r0, heads)  r = Cast<to = 9>(r1)",
    "two sizes of one": "n = Shape<start = 2>(attention_mask)  to4 = Concat<axis = 0>(any, one, one, n)  r1 = Reshape(attention_mask, to4)  r = Cast<to = 9>(r1)",
    "another type first": "m0 = Cast<to = 9>(attention_mask)  r0 = Reshape(m0, column)  r = Reshape(r0, heads)",
    "rows that are there": "r0 = Reshape(attention_mask, column)  r1 = Squeeze(r0, second)  r2 = Cast<to = 9>(r1)  r = Reshape(r2, heads)",
}
"""How a graph may come from [A,C,S] to [A*C,1,1,S]; in the first way transformers 4.57 does once Reshapes are joined."""


def model(masked: str, **edits: str) -> ir.Model:
    """One layer whose head reads each sequence's first token."""
    nodes = NODES | {
        "mask": MASKED[masked],
        "square": "length = Shape<start = 2>(attention_mask)  square = Concat<axis = 0>(one, one, length, one)",
        "norm": """tokens = Shape<start = 2>(x)  to = Concat<axis = 0>(any, tokens)  x3 = Reshape(x, to)
            h = LayerNormalization<axis = -1>(x3, gain, shift)""",
    }
    text = f"""g (float[A,C,S,8] x, int64[A,C,S] attention_mask, float[8] gain, float[8] shift, float[8,24] w, float[8,8] o)
        => (float[N,8] y) <{CONSTANTS}> {{ {"  ".join((nodes | edits).values())} }}"""
    return fill(parse(text), gain=(8,), shift=(8,), w=(8, 24), o=(8, 8))


def outputs(made: ir.Model, mask: np.ndarray) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((*mask.shape, 8)).astype(np.float32)
    return run(open_session(ir.to_proto(made).SerializeToString(), optimize=False), {"x": x, "attention_mask": mask})["y"]


def lines(made: ir.Model) -> list[str]:
    return [str(node) for node in made.graph] + sorted(made.graph.initializers)


@pytest.mark.parametrize("masked", MASKED)
def test_padding_goes(masked):
    before, after = model(masked), model(masked)
    assert unpad(after, analysis_of(after)) == Padding()
    assert "NonZero" in ops(after)
    for kind in MASKS[:-1]:
        mask = by_choice(mask_of(kind, 2, 7), 3).astype(np.int64)
        wanted = outputs(before, mask)
        np.testing.assert_allclose(outputs(after, mask), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("masked", MASKED)
def test_what_keeps_its_padding_stays_as_it_is(masked):
    kept = model(masked, head="y = Identity(e)")
    before = lines(kept)
    assert unpad(kept, analysis_of(kept)).kept == "output 'y' shows padded positions"
    assert lines(kept) == before


def test_what_is_proven_wrong_is_put_back(monkeypatch):
    right = module._rewrite

    def wrong(graph, *others, **options):
        right(graph, *others, **options)
        next(node for node in graph if node.op_type == "LayerNormalization").attributes["epsilon"] = ir.AttrFloat32(
            "epsilon", 1.0
        )

    monkeypatch.setattr(module, "_rewrite", wrong)
    after, context = model("with sizes of one between"), Context(compute, infer, prove=True)
    before = ops(after)
    result = context.apply(RemovePadding(), after)
    assert "computes something else: off by" in result.padding.kept
    assert ops(after) == before


def test_it_is_proven_on_the_whole_graph():
    after, context = model("with sizes of one between"), Context(compute, infer, prove=True)
    assert context.apply(RemovePadding(), after).modified
    trace = context.trace.to_json()
    assert (trace["proven"], trace["unproven"], trace["rejected"]) == (1, {}, {})


@pytest.mark.parametrize(
    "mask",
    [
        "r0 = Transpose<perm = [1, 0, 2]>(attention_mask)  r1 = Reshape(r0, column)  r2 = Reshape(r1, heads)  r = Cast<to = 9>(r2)",
        "n = Shape<end = 2>(attention_mask)  to4 = Concat<axis = 0>(one, n, any)  r1 = Reshape(attention_mask, to4)  r = Cast<to = 9>(r1)",
        "n = Shape<start = 1, end = 2>(attention_mask)  to2 = Concat<axis = 0>(any, n)  r1 = Reshape(attention_mask, to2)  r2 = Reshape(r1, heads)  r = Cast<to = 9>(r2)",
    ],
    ids=["the choices turned", "no row for each sequence", "rows of something else"],
)
def test_another_mask_stays(mask):
    kept = model("with sizes of one between", mask=mask)
    before = lines(kept)
    assert unpad(kept, analysis_of(kept)).kept == "input 'attention_mask' has rank 3, wanted [B,S]"
    assert lines(kept) == before


def test_a_model_whose_padding_is_gone_says_so(bert_export, tmp_path):
    """Also where it is optimized again, as another tool's package of it is, and int8."""
    source = bert_export / "export" / "model.onnx"
    optimize(OptimizeConfig(source, tmp_path / "once.onnx"))
    again = optimize(OptimizeConfig(tmp_path / "once.onnx", tmp_path / "twice.onnx", model_type="bert"))
    assert str(again.padding) == str(padding_of(tmp_path / "once.onnx", model_type_="bert")) == "removed already"
    optimize(OptimizeConfig(tmp_path / "once.onnx", tmp_path / "asked.onnx", model_type="bert", unpad=True))
    optimize(OptimizeConfig(source, tmp_path / "kept.onnx", unpad=False))
    assert str(padding_of(tmp_path / "kept.onnx", model_type_="bert")) == "removed"

"""One encoder layer: every spelling fuses completely, every look-alike keeps what it computes; ONNX Runtime's optimizer beside."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxfuse.optimizer import fuse
from onnxfuse.runtime.sessions import open_session, run
from onnxfuse.targets import find
from tests.conftest import fill, parse
from tests.layer import CONSTANTS, FULL, HOLES, LEFT, LOOK_ALIKES, ORT, PARTS, RIGHT, SPELLINGS, WEIGHTS, Case, close, ort_verdict
from tests.rewrite.splices import read, renamed


def name(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", [*SPELLINGS, *LOOK_ALIKES], ids=name)
def test_counts_and_outputs(case):
    """Without proofs: the guards alone must keep every rewrite right. Then with them: none may find anything wrong."""
    before, after, proven = case.build(), case.build(), case.build()
    fused = fuse(after, find("cpu"))
    assert {thing: fused.counts[thing] for thing in FULL} == FULL | case.counts
    feeds = case.feeds(before)
    wanted = run(open_session(ir.to_proto(before).SerializeToString(), optimize=False), feeds)
    got = run(open_session(ir.to_proto(after).SerializeToString()), feeds)
    assert set(got) == set(wanted)
    assert all(close(wanted[output], got[output], case.tolerance) for output in wanted)
    trace = fuse(proven, find("cpu"), prove=True).trace
    assert trace.rejected == {}
    assert trace.proven > 0


@pytest.mark.slow  # it measures another library
@pytest.mark.filterwarnings("ignore")  # onnxruntime.transformers uses what numpy and onnx deprecate
@pytest.mark.parametrize("case", LOOK_ALIKES, ids=name)
def test_what_ort_does_with_it(case, tmp_path):
    assert ort_verdict(case, tmp_path) == ORT.get(case.name, "right")


def test_each_layer_keeps_its_own_mask():
    """Two layers, the second with another mask: both fuse, neither takes the other's."""
    body = [statement for part in PARTS.values() for statement in read(part)]
    other = [
        statement
        for name, part in PARTS.items()
        for statement in read(part.replace("(mask,", "(other,") if name == "mask" else part)
    ]
    statements = [*renamed(body, 1, "x"), *renamed(other, 2, "y1")]
    inputs = ", ".join(
        [
            "float[B,S,16] x",
            "int64[B,S] mask",
            "int64[B,S] other",
            *(f"float[{','.join(map(str, shape))}] {weight}" for weight, shape in WEIGHTS.items()),
        ]
    )
    text = f"g ({inputs}) => (float[B,S,16] y2) <{CONSTANTS}> {{ " + "\n".join(map(str, statements)) + " }"
    before, after = (fill(parse(text, opset=18), **WEIGHTS) for _ in range(2))
    assert fuse(after, find("cpu")).counts["attention"] == 2
    x = np.random.default_rng(0).standard_normal((2, 5, 16)).astype(np.float32)
    feeds = {"x": x, "mask": np.array([RIGHT, LEFT]), "other": np.array([LEFT, HOLES])}
    wanted = run(open_session(ir.to_proto(before).SerializeToString(), optimize=False), feeds)
    assert close(wanted["y2"], run(open_session(ir.to_proto(after).SerializeToString()), feeds)["y2"], 1e-5)


def test_the_page_of_coverage_counts_them_right():
    page = (Path(__file__).parent.parent / "docs" / "coverage.md").read_text()
    wrong, failed = (sum(verdict == kind for verdict in ORT.values()) for kind in ("wrong", "fails"))
    assert f"in {len(SPELLINGS)} ways that must fuse, and {len(LOOK_ALIKES)} look-alikes" in page
    assert f"which gets {wrong} of {len(LOOK_ALIKES)} wrong and fails on {failed}" in " ".join(page.split())


def test_names_are_single():
    names = [case.name for case in (*SPELLINGS, *LOOK_ALIKES)]
    assert len(set(names)) == len(names)
    assert set(ORT) <= set(names)

"""One encoder layer: every spelling fuses completely, every look-alike keeps what it computes; ONNX Runtime's optimizer beside."""

import onnx_ir as ir
import pytest

from onnxfuse.fuse import fuse
from onnxfuse.runtime import open_session, run
from onnxfuse.targets import find
from tests.layer import FULL, LOOK_ALIKES, ORT, SPELLINGS, Case, close, ort_verdict


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


@pytest.mark.filterwarnings("ignore")  # onnxruntime.transformers uses what numpy and onnx deprecate
@pytest.mark.parametrize("case", LOOK_ALIKES, ids=name)
def test_what_ort_does_with_it(case, tmp_path):
    assert ort_verdict(case, tmp_path) == ORT.get(case.name, "right")


def test_names_are_single():
    names = [case.name for case in (*SPELLINGS, *LOOK_ALIKES)]
    assert len(set(names)) == len(names)
    assert set(ORT) <= set(names)

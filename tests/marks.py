"""Marks of tests that are about other operators than our own, for ``scripts/suite_as.py native``.

There target cpu's models are of our own operators; as target cpu is shipped, none of these tests is left out.
"""

import pytest

from onnxfuse import targets


def _unless_own(why: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(targets.find("cpu").is_own, reason=f"target cpu has our own operators: {why}")


OPENVINO = _unless_own("OpenVINO reads none of them")
FLOAT16 = _unless_own("none of them computes in float16")
OTHERS = _unless_own("the test looks at those that cpu is shipped with")

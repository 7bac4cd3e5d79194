"""Target cuda: the operators that ONNX Runtime's CUDA provider has fused kernels for, in float16, counted for each family."""

from collections import Counter

import onnx
import pytest

from onnxfuse.config import OptimizeConfig
from onnxfuse.pipeline.optimize import optimize
from tests.families import TINY
from tests.pipeline.test_families import exports  # noqa: F401 - a fixture

OPERATORS = ("MultiHeadAttention", "SkipLayerNormalization", "LayerNormalization", "BiasGelu", "Gelu", "Softmax")
COUNTS = {
    "albert": (2, 4, 1, 0, 2, 0),  # its GELU is tanh's
    "bert": (2, 4, 1, 2, 0, 0),
    "camembert": (2, 5, 0, 2, 0, 0),
    "clip_text_model": (2, 1, 4, 0, 0, 0),  # QuickGELU, and norms before: their sums are read twice
    "clip_vision_model": (2, 1, 5, 0, 0, 0),
    "deberta-v2": (0, 4, 1, 3, 0, 2),  # its attention stays: positions are part of it
    "deit": (2, 1, 4, 2, 0, 0),
    "dinov2": (2, 1, 4, 2, 0, 0),
    "distilbert": (2, 4, 1, 2, 0, 0),
    "electra": (2, 4, 1, 3, 0, 0),
    "modernbert": (0, 1, 5, 0, 3, 2),  # heads stand apart, for rotary positions
    "mpnet": (2, 5, 0, 2, 0, 0),
    "roberta": (2, 5, 0, 2, 0, 0),
    "siglip_text_model": (2, 1, 4, 0, 2, 0),
    "siglip_vision_model": (3, 1, 5, 0, 3, 0),
    "vit": (2, 1, 4, 2, 0, 0),
    "xlm-roberta": (2, 5, 0, 2, 0, 0),
}
"""Of two layers, by family: how many of each of OPERATORS."""


def test_every_family_is_counted():
    assert set(COUNTS) == set(TINY)


@pytest.mark.parametrize("family", COUNTS)
def test_the_fused_operators_of_a_family(family, exports, tmp_path):  # noqa: F811
    """onnx's checker takes the file, and ONNX Runtime runs it on the CPU, where float16 is computed between two casts."""
    step = optimize(OptimizeConfig(exports(family).path, tmp_path / "model.onnx", "cuda", precision="fp16"))
    seen = Counter(node.op_type for node in step.model.model.graph)
    assert tuple(seen[name] for name in OPERATORS) == COUNTS[family]
    assert not seen["NonZero"] and str(step.padding) == "kept: as target cuda has it", (
        "finding the real tokens would wait for the GPU"
    )
    onnx.checker.check_model(step.path, full_check=False)  # it knows no shapes of com.microsoft's operators
    assert step.parity.passed and step.parity.kind == "half"
    assert step.model.model.opset_imports[""] <= 22

"""torchao's int8, compiled: weights have a scale for each row, activations one for each token, measured as they come.

Source: torchao 0.18 (``quantize_``, ``Int8DynamicActivationInt8WeightConfig``), ``torch.compile``.
"""

from __future__ import annotations

import copy
from dataclasses import replace

from onnxfuse.io.quiet import quiet
from onnxfuse.pipeline.baselines.api import Baseline, Context, Made, in_torch


def _open(context: Context) -> Made:
    with quiet():
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        checkpoint = context.torch()
        module = copy.deepcopy(checkpoint.module)
        quantize_(module, Int8DynamicActivationInt8WeightConfig())
    return in_torch(replace(checkpoint, module=module), context, compiled=True)


BASELINE = Baseline("torchao-int8", "int8", _open)

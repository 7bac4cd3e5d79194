"""Quantization to int8.

    dynamic   weights stored in int8, activations quantized while the model runs
"""

from onnxfuse.quantize.dynamic import Quantized, quantize_dynamic

__all__ = ["Quantized", "quantize_dynamic"]

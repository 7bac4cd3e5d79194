"""The verbs that read or write, by what of their input is hostile."""

from __future__ import annotations

from attacks import malformed
from attacks.child import Command

QUICK = ["--rounds", "1", "--batch", "1", "--length", "8", "--threads", "1"]
MODEL: dict[str, Command] = {
    **malformed.VERBS,
    "load": malformed.use,
    "evaluate": ["evaluate", "model.onnx", "--data", "data", "--rounds", "1", "--threads", "1"],
    "tune": ["tune", "model.onnx", *QUICK],
    "ablate": ["ablate", "model.onnx", *QUICK],
    "package": ["package", "model.onnx", "--for", "transformers.js", "-o", "made"],
}
VERBS: dict[str, dict[str, Command]] = {
    "model": MODEL,
    "beside": {verb: MODEL[verb] for verb in ("optimize", "quantize", "check", "explain", "tune", "package")},
    "texts": {"quantize": ["quantize", "model.onnx", "-o", "made.onnx"], "package": MODEL["package"]},
    "int8": {"check": ["check", "model.onnx", "model_quantized.onnx", "--kind", "int8"]},
    "data": {
        "evaluate": MODEL["evaluate"],
        "quantize": ["quantize", "model.onnx", "-o", "made.onnx", "--calibration", "data"],
        "check": ["check", "model.onnx", "model_optimized.onnx", "--data", "data"],
    },
    "target": {
        "optimize": ["optimize", "model.onnx", "-o", "made.onnx", "--target", "target"],
        "explain": ["explain", "model.onnx", "--target", "target"],
        "tune": ["tune", "model.onnx", *QUICK, "--target", "target"],
        "load": lambda: malformed.answered(lambda: malformed.call(malformed.onnxfuse.load("model.onnx", target="target"))),
    },
    "checkpoint": {"export": ["export", "checkpoint", "-o", "made", "--exporter", "torchscript"]},
    "output": {verb: MODEL[verb] for verb in ("optimize", "quantize", "tune")},
    "default": {"optimize": ["optimize", "model.onnx"]},
}

"""optimum's ORTModel classes: the hub's layout.

Source: optimum-onnx 0.1 (``ORTModel.from_pretrained`` looks for model.onnx in the folder and below it, and takes ``file_name``).
"""

from __future__ import annotations

from onnxfuse.architecture import OUTPUTS
from onnxfuse.layouts.api import HUB, Content, Layout, quoted

CLASSES = {
    "feature-extraction": "ORTModelForFeatureExtraction",
    "fill-mask": "ORTModelForMaskedLM",
    "text-classification": "ORTModelForSequenceClassification",
    "token-classification": "ORTModelForTokenClassification",
    "question-answering": "ORTModelForQuestionAnswering",
    "multiple-choice": "ORTModelForMultipleChoice",
    "image-classification": "ORTModelForImageClassification",
}
"""By task; each reads the outputs that ``OUTPUTS`` has for it."""

ANY = "ORTModelForCustomTasks"
"""The class that gives whatever outputs a model has, by their names."""


def class_of(content: Content) -> str:
    """The class that serves a model: its task's, where the model gives what that reads."""
    task = "feature-extraction" if set(content.outputs) >= set(OUTPUTS["feature-extraction"]) else content.task
    return CLASSES[task] if task in CLASSES and set(content.outputs) >= set(OUTPUTS[task]) else ANY


def use(content: Content, precision: str, folder: str) -> str:
    name = HUB[precision].rpartition("/")[2]
    return f'optimum.onnxruntime.{class_of(content)}.from_pretrained({quoted(folder)}, subfolder="onnx", file_name="{name}")'


LAYOUT = Layout("optimum", "optimum", HUB, use)

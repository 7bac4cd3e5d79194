"""transformers.js, in browsers and Node: the hub's layout, with its own names of precisions.

Source: @huggingface/transformers 4.3 (fp32 is model.onnx, q8 model_quantized.onnx, in the folder onnx;
the pipelines' tasks; tokenizers from tokenizer.json alone).
"""

from __future__ import annotations

from onnxfuse.architecture import IDS, PIXELS
from onnxfuse.io import onnx_file
from onnxfuse.layouts.api import FLOAT, HUB, INT8, Content, Layout, quoted

DTYPES = {FLOAT: "fp32", INT8: "q8"}

PIPELINES = {
    "feature-extraction": "feature-extraction",
    "sentence-similarity": "feature-extraction",
    "fill-mask": "fill-mask",
    "text-classification": "text-classification",
    "token-classification": "token-classification",
    "question-answering": "question-answering",
    "image-classification": "image-classification",
    "image-feature-extraction": "image-feature-extraction",
}
"""Its pipelines by our tasks; what has none is opened as a model, without one."""

POOLED = ("last_hidden_state", "logits", "token_embeddings")
"""The outputs that its feature-extraction reads, the first that is there."""

NEEDS = {IDS: "tokenizer.json", PIXELS: "preprocessor_config.json"}
"""The file without which it makes no such input."""


def refusal(content: Content) -> str:
    """Why it cannot serve a model, and the next step."""
    for name, file in NEEDS.items():
        if name in content.inputs and file not in content.files:
            what = "AutoTokenizer" if name == IDS else "AutoImageProcessor"
            return f"it makes {name} with {file}, which is not beside the model; write it there with {what}'s save_pretrained"
    large = [model for model in content.models.values() if model.size > onnx_file.PROTOBUF_LIMIT]
    return f"it reads a model of one file, and {large[0]} has its weights in another; quantize it" if large else ""


def use(content: Content, precision: str, folder: str) -> str:
    name = PIPELINES.get(content.task)
    pooled = name != "feature-extraction" or any(output in POOLED for output in content.outputs)
    call = f'pipeline("{name}", ' if name and pooled else "AutoModel.from_pretrained("
    return f'await {call}{quoted(folder)}, {{ dtype: "{DTYPES[precision]}" }})'


LAYOUT = Layout("transformers.js", "transformers.js", HUB, use, refusal)

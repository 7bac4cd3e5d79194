"""sentence-transformers with ``backend="onnx"``: the hub's layout, modules.json and the folders of modules beside it.

Its backend runs the encoder alone, in a class of optimum, and pools what that gives itself: it reads ``last_hidden_state``, and
of cross-encoders and sparse encoders ``logits``.

Source: sentence-transformers 5.7 (``backend.load``: three classes of optimum), optimum-onnx 0.1 (the output that each reads).
"""

from __future__ import annotations

from onnxfuse.architecture import IDS
from onnxfuse.layouts.api import HUB, Content, Layout, quoted

STATES, SCORES = "last_hidden_state", "logits"

CLASSES = {
    "feature-extraction": ("SentenceTransformer", STATES),
    "sentence-similarity": ("SentenceTransformer", STATES),
    "text-classification": ("CrossEncoder", SCORES),
    "fill-mask": ("SparseEncoder", SCORES),
}
"""By task, the class, and the output that it reads."""


def refusal(content: Content) -> str:
    """Why its backend cannot serve a model, and the next step."""
    if content.task not in CLASSES:
        return f"it has no class for task {content.task or 'unknown'}, only for {', '.join(CLASSES)}; try --for optimum"
    if IDS not in content.inputs:
        return f"its backend feeds {IDS}, and the model takes {', '.join(content.inputs)}; try --for optimum"
    _, reads = CLASSES[content.task]
    if reads not in content.outputs:
        return (
            f"it reads {reads} and pools by itself, and the model gives {', '.join(content.outputs)}; export it anew with: "
            f"onnxfuse export {content.origin} --outputs {reads}"
        )
    if "tokenizer_config.json" not in content.files:
        return "no tokenizer lies beside the model, and it reads texts; lay the checkpoint's tokenizer files there"
    return ""


def use(content: Content, precision: str, folder: str) -> str:
    name, _ = CLASSES[content.task]
    return f'sentence_transformers.{name}({quoted(folder)}, backend="onnx", model_kwargs={{"file_name": "{HUB[precision]}"}})'


LAYOUT = Layout("sentence-transformers", "sentence-transformers", HUB, use, refusal)

"""sentence-transformers' own backends: what it makes of a sentence encoder's folder, in PyTorch, and in ONNX Runtime by optimum.

Source: sentence-transformers 6.2 (``SentenceTransformer(backend=...)``); optimum-onnx 0.1 asks for transformers below 4.58.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from onnxfuse.errors import ModelError
from onnxfuse.exporters.sentence import SENTENCE
from onnxfuse.io import onnx_file
from onnxfuse.io.quiet import quiet
from onnxfuse.pipeline.baselines.api import Baseline, Context, Made, tensor_bytes
from onnxfuse.runtime import Feeds, Outputs, Runner


def _torch(context: Context) -> Made:
    model = _open(context, "torch", {})
    return Made(_caller(model), sum(map(tensor_bytes, (*model.parameters(), *model.buffers()))))


def _onnx(context: Context) -> Made:
    if importlib.util.find_spec("optimum") is None:
        raise ModelError(
            "sentence-transformers' onnx backend is optimum-onnx, which is not installed here and installs with transformers 4 "
            "alone; take an environment with that for it"
        )
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = context.threads
    model = _open(context, "onnx", {"provider": "CPUExecutionProvider", "session_options": options})
    return Made(_caller(model), onnx_file.model_bytes(Path(model[0].model.model_path)))


def _open(context: Context, backend: Any, options: dict[str, Any]) -> Any:
    """A SentenceTransformer of the checkpoint. Raises ModelError: it is none that has one."""
    checkpoint = context.torch()
    if checkpoint.outputs != (SENTENCE,):
        raise ModelError(f"sentence-transformers gives a {SENTENCE}, and this model {', '.join(checkpoint.outputs)}")
    if not checkpoint.files:
        raise ModelError(f"sentence-transformers opens a checkpoint with its tokenizer, and {checkpoint.name} has none beside it")
    import torch
    from sentence_transformers import SentenceTransformer

    if context.threads:
        torch.set_num_threads(context.threads)
    with quiet():
        return SentenceTransformer(checkpoint.name, device="cpu", backend=backend, model_kwargs=options).eval()


def _caller(model: Any) -> Runner:
    import torch

    def call(feeds: Feeds) -> Outputs:
        with torch.inference_mode():
            return {SENTENCE: model({name: torch.from_numpy(feeds[name]) for name in feeds})[SENTENCE].numpy()}

    return call


BASELINES = (
    Baseline("sentence-transformers", "fp32", _torch),
    Baseline("sentence-transformers-onnx", "fp32", _onnx),
)

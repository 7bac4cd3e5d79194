"""The ways out of a folder that concern models and checkpoints, with other tools that read these: what comes of them there.

What such a tool says when it refuses is its own affair: any exception counts as refused. To pass over a pipe or a device that was
named is done, not a read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from attacks import escapes
from attacks.child import Case, Room
from attacks.sources import Sources

MODEL, MADE = "model.onnx", "made.onnx"


def _onnx() -> None:
    import onnx

    onnx.save(onnx.load(MODEL), MADE)


def _optimizer() -> None:
    from onnxruntime.transformers import optimizer

    optimizer.optimize_model(MODEL, model_type="bert", num_heads=4, hidden_size=128).save_model_to_file(MADE)


def _quantizer() -> None:
    from onnxruntime import quantization

    quantization.quantize_dynamic(MODEL, MADE)


def _runtime() -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    session.run(None, {value.name: np.ones((1, 8), np.int64) for value in session.get_inputs()})


def _openvino() -> None:
    import openvino

    openvino.save_model(openvino.convert_model(MODEL), "made.xml", compress_to_fp16=False)


def _torch() -> None:
    import torch
    import transformers

    model = transformers.AutoModelForSequenceClassification.from_pretrained("checkpoint").eval()
    transformers.AutoTokenizer.from_pretrained("checkpoint").save_pretrained("made")
    ids = torch.ones(1, 8, dtype=torch.int64)
    torch.onnx.export(model, (ids,), "made/model.onnx", input_names=["input_ids"], dynamo=False)


PEERS: dict[str, dict[str, Callable[[], None]]] = {
    "model": {
        "onnx load and save": _onnx,
        "onnxruntime.transformers optimize_model": _optimizer,
        "onnxruntime.quantization quantize_dynamic": _quantizer,
        "onnxruntime InferenceSession": _runtime,
        "openvino convert_model": _openvino,
    },
    "output": {
        "onnx load and save": _onnx,
        "onnxruntime.transformers optimize_model": _optimizer,
        "onnxruntime.quantization quantize_dynamic": _quantizer,
    },
    "checkpoint": {"transformers from_pretrained, torch.onnx.export": _torch},
}
"""Other tools, by what of their input is hostile."""


def cases(sources: Sources, _: int) -> list[Case]:
    """Every kind with every other tool that reads what it is about."""
    return [
        Case("peers", kind.name, name, _builder(sources, kind, peer), kind.allowed)
        for kind in escapes.KINDS
        for name, peer in PEERS.get(kind.reads, {}).items()
    ]


def _builder(sources: Sources, kind: escapes.Kind, peer: Callable[[], None]) -> Callable[[Room], Callable[[], None]]:
    def build(room: Room) -> Callable[[], None]:
        escapes.furnish(room, sources)
        kind.lay(room)
        return lambda: _answered(peer)

    return build


def _answered(peer: Callable[[], None]) -> None:
    """Run it, whatever it prints; an exception becomes one line and an exit code. Raises SystemExit."""
    Path("made").mkdir(exist_ok=True)
    own = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    refused = ""
    try:
        peer()
    except Exception as error:  # noqa: BLE001 - whatever it raises, it refuses
        refused = " ".join(str(error).split())[:200]
    sys.stderr.flush()
    os.dup2(own, 2)
    if refused:
        sys.stderr.write(f"onnxfuse: the other tool says: {refused}\n")
    raise SystemExit(3 if refused else 0)

"""What tests of plugins share: a small checkpoint, and an ONNX model of it."""

from pathlib import Path


def small_checkpoint(name: str, folder: Path) -> None:
    """Save a two-layer classifier of ``transformers`` with random weights, ``name``: as its classes begin (``Electra``)."""
    import torch
    import transformers

    from tests.conftest import BERT

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**BERT, num_hidden_layers=2)
    getattr(transformers, f"{name}ForSequenceClassification")(config).save_pretrained(folder)

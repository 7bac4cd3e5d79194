"""The smallest checkpoint of every family: two layers, random in every weight, and the class that it is saved as."""

from __future__ import annotations

from typing import Any

TEXT = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "max_position_embeddings": 32,
}
IMAGE = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 5,
}
BEHIND = TEXT | {"max_position_embeddings": 34, "type_vocab_size": 1, "pad_token_id": 1}
"""Of RoBERTa's kind: positions begin behind the id of padding."""

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertForSequenceClassification", TEXT),
    "camembert": ("CamembertForSequenceClassification", BEHIND),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": 120, "dim": 32, "n_heads": 4, "hidden_dim": 512, "n_layers": 2, "max_position_embeddings": 32},
    ),
    "electra": ("ElectraForSequenceClassification", TEXT | {"embedding_size": 16}),
    "roberta": ("RobertaForSequenceClassification", BEHIND),
    "vit": ("ViTForImageClassification", IMAGE),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", BEHIND),
}


def tiny(family: str, **fields: Any) -> Any:
    """A model of a family, biases and norms random too; ``fields``: of its config, that differ."""
    import torch
    import transformers

    from onnxfuse.exporters.pytorch import _disturb

    head, sizes = TINY[family]
    torch.manual_seed(0)
    model = getattr(transformers, head)(transformers.CONFIG_MAPPING[family](**sizes | fields)).eval()
    _disturb(model)
    return model

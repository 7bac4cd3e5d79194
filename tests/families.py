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

PROMPTS = TEXT | {"bos_token_id": 0, "eos_token_id": 2}
ROTARY = TEXT | {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
DISENTANGLED = TEXT | {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "pooler_hidden_size": 32,
}

TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "albert": ("AlbertForSequenceClassification", TEXT | {"embedding_size": 16}),
    "bert": ("BertForSequenceClassification", TEXT),
    "camembert": ("CamembertForSequenceClassification", BEHIND),
    "clip_text_model": ("CLIPTextModelWithProjection", PROMPTS),
    "clip_vision_model": ("CLIPVisionModelWithProjection", IMAGE),
    "deberta-v2": ("DebertaV2ForSequenceClassification", DISENTANGLED),
    "deit": ("DeiTForImageClassificationWithTeacher", IMAGE),
    "dinov2": ("Dinov2ForImageClassification", IMAGE | {"mlp_ratio": 16}),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"vocab_size": 120, "dim": 32, "n_heads": 4, "hidden_dim": 512, "n_layers": 2, "max_position_embeddings": 32},
    ),
    "electra": ("ElectraForSequenceClassification", TEXT | {"embedding_size": 16}),
    "modernbert": ("ModernBertForSequenceClassification", ROTARY | {"local_attention": 8}),
    "mpnet": ("MPNetForSequenceClassification", TEXT | {"max_position_embeddings": 34}),
    "roberta": ("RobertaForSequenceClassification", BEHIND),
    "siglip_text_model": ("SiglipTextModel", PROMPTS),
    "siglip_vision_model": ("SiglipVisionModel", IMAGE),
    "vit": ("ViTForImageClassification", IMAGE),
    "xlm-roberta": ("XLMRobertaForSequenceClassification", BEHIND),
}


def tiny(family: str, head: str | None = None, **fields: Any) -> Any:
    """A model of a family, biases and norms random too; of another class than in ``TINY``, with other ``fields`` in its config."""
    import torch
    import transformers

    from onnxfuse.exporters.pytorch import _disturb

    usual, sizes = TINY[family]
    torch.manual_seed(0)
    made = getattr(transformers, head or usual)
    model = made(made.config_class(**sizes | fields)).eval()
    _disturb(model)
    return model

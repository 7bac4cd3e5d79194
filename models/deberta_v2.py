"""DeBERTa v2 and v3: scores of content and of relative position are added before softmax, so attention stays as it is."""

from onnxfuse.architecture import TEXT_TASKS, TOKENS, Architecture, Count

V3 = {
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "max_relative_positions": -1,
}
SMALL = V3 | {"hidden_size": 768, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 3072}
BASE = V3 | {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = V3 | {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}

ARCHITECTURE = Architecture(
    model_type="deberta-v2",
    inputs={"input_ids": TOKENS, "attention_mask": TOKENS, "token_type_ids": TOKENS},
    needs={"token_type_ids": ("type_vocab_size", 1)},
    layers="num_hidden_layers",
    tasks=TEXT_TASKS,
    counts={"layer_norm": Count(2, 1), "gelu": Count(1)},
    heads={"fill-mask": {"layer_norm": 1, "gelu": 1}, "text-classification": {"gelu": 1}, "multiple-choice": {"gelu": 1}},
    checkpoints={
        "microsoft/deberta-v3-small": SMALL,
        "microsoft/deberta-v3-base": BASE,
        "microsoft/deberta-v3-large": LARGE,
    },
)

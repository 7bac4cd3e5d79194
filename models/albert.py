"""ALBERT: BERT whose layers share their weights, behind embeddings that are narrower than they."""

from onnxfuse.architecture import TEXT_TASKS, TOKENS, Architecture, Count

BASE = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}

ARCHITECTURE = Architecture(
    model_type="albert",
    inputs={"input_ids": TOKENS, "attention_mask": TOKENS, "token_type_ids": TOKENS},
    layers="num_hidden_layers",
    inner_layers="inner_group_num",
    tasks=TEXT_TASKS | {"pre-training": "AutoModelForPreTraining"},
    counts={"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)},
    heads={"fill-mask": {"layer_norm": 1, "gelu": 1}, "pre-training": {"layer_norm": 1, "gelu": 1}},
    outputs={"pre-training": ("prediction_logits", "sop_logits")},
    checkpoints={
        "albert/albert-base-v1": BASE | {"hidden_act": "gelu"},
        "albert/albert-base-v2": BASE,
        "albert/albert-large-v2": LARGE,
        "albert/albert-xxlarge-v2": {},
    },
)

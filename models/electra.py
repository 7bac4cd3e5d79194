"""ELECTRA: BERT whose embeddings may be narrower than its layers, with a classifier of its own instead of a pooler."""

from onnxfuse.architecture import TEXT_TASKS, TOKENS, Architecture, Count

SMALL = {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024}
BASE = {"embedding_size": 768, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
LARGE = {
    "embedding_size": 1024,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}

ARCHITECTURE = Architecture(
    model_type="electra",
    inputs={"input_ids": TOKENS, "attention_mask": TOKENS, "token_type_ids": TOKENS},
    layers="num_hidden_layers",
    tasks=TEXT_TASKS | {"pre-training": "AutoModelForPreTraining"},
    counts={"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)},
    heads={
        "fill-mask": {"layer_norm": 1, "gelu": 1},
        "text-classification": {"gelu": 1},
        "multiple-choice": {"gelu": 1},
        "pre-training": {"gelu": 1},
    },
    outputs={"pre-training": ("logits",)},  # of the discriminator, one for each token
    checkpoints={
        "google/electra-small-discriminator": SMALL,
        "google/electra-base-discriminator": BASE,
        "google/electra-large-discriminator": LARGE,
    },
)

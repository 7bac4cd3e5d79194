"""MPNet: BERT without token types, with positions counted as RoBERTa's, and a bias of relative position in all scores."""

from onnxfuse.architecture import TEXT_TASKS, TOKENS, Architecture, Count

BASE = {"vocab_size": 30527, "max_position_embeddings": 514, "layer_norm_eps": 1e-5}

ARCHITECTURE = Architecture(
    model_type="mpnet",
    inputs={"input_ids": TOKENS, "attention_mask": TOKENS},
    layers="num_hidden_layers",
    tasks=TEXT_TASKS,
    counts={"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)},
    heads={"fill-mask": {"layer_norm": 1, "gelu": 1}},
    after_padding=True,
    checkpoints={
        "microsoft/mpnet-base": BASE,
        "sentence-transformers/all-mpnet-base-v2": BASE,
        "sentence-transformers/multi-qa-mpnet-base-dot-v1": BASE,
    },
)

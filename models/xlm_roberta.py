"""XLM-RoBERTa: RoBERTa over the words of a hundred languages."""

from onnxfuse.architecture import TEXT_TASKS, TOKENS, Architecture, Count

BASE = {"vocab_size": 250002, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}

ARCHITECTURE = Architecture(
    model_type="xlm-roberta",
    inputs={"input_ids": TOKENS, "attention_mask": TOKENS, "token_type_ids": TOKENS},
    needs={"token_type_ids": ("type_vocab_size", 2)},
    layers="num_hidden_layers",
    tasks=TEXT_TASKS,
    counts={"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)},
    heads={"fill-mask": {"layer_norm": 1, "gelu": 1}},
    after_padding=True,
    checkpoints={
        "FacebookAI/xlm-roberta-base": BASE,
        "FacebookAI/xlm-roberta-large": BASE | LARGE,
        "intfloat/multilingual-e5-base": BASE,
        "intfloat/multilingual-e5-large": BASE | LARGE,
        "BAAI/bge-m3": BASE | LARGE | {"max_position_embeddings": 8194},
    },
)

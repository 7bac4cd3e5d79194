"""DistilBERT: BERT with half the layers, no segments and no pooler."""

from onnxfuse.architecture import TEXT_TASKS, TOKENS, Architecture, Count

ARCHITECTURE = Architecture(
    model_type="distilbert",
    inputs={"input_ids": TOKENS, "attention_mask": TOKENS},
    layers="n_layers",
    tasks=TEXT_TASKS,
    counts={"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)},
    activation="activation",
    heads={"fill-mask": {"layer_norm": 1, "gelu": 1}},
    checkpoints={
        "distilbert-base-uncased": {},
        "distilbert-base-cased": {"vocab_size": 28996},
    },
)

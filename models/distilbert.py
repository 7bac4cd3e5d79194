"""DistilBERT: BERT with half the layers, no segments and no pooler."""

from onnxfuse.architecture import KERAS_TEXT, TEXT_TASKS, TOKENS, Architecture, Count

ARCHITECTURE = Architecture(
    model_type="distilbert",
    inputs={"input_ids": TOKENS, "attention_mask": TOKENS},
    layers="n_layers",
    tasks=TEXT_TASKS,
    counts={"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)},
    activation="activation",
    heads={"fill-mask": {"layer_norm": 1, "gelu": 1}},
    shown_by=frozenset(),  # where no input tells more, ids and a mask are all that is known of a model
    keras_hub={
        "DistilBertBackbone": KERAS_TEXT
        | {"num_layers": "n_layers", "num_heads": "n_heads", "hidden_dim": "dim", "intermediate_dim": "hidden_dim"}
    },
    checkpoints={
        "distilbert-base-uncased": {},
        "distilbert-base-cased": {"vocab_size": 28996},
    },
)

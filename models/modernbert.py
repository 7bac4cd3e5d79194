"""ModernBERT: pre-norm encoder with rotary positions, gated feed-forward, no biases, and layers that see near tokens alone."""

from onnxfuse.architecture import TEXT_TASKS, TOKENS, Architecture, Count

BASE = {"classifier_pooling": "mean"}
LARGE = BASE | {"hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 2624}
HEADS = ("fill-mask", "text-classification", "token-classification", "question-answering", "multiple-choice")
"""All of them have a layer and a norm of their own; the first encoder layer has one norm less."""

ARCHITECTURE = Architecture(
    model_type="modernbert",
    inputs={"input_ids": TOKENS, "attention_mask": TOKENS},
    layers="num_hidden_layers",
    tasks=TEXT_TASKS,
    counts={"attention": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)},
    heads={task: {"layer_norm": 1, "gelu": 1} for task in HEADS},
    activation="hidden_activation",
    checkpoints={
        "answerdotai/ModernBERT-base": BASE,
        "answerdotai/ModernBERT-large": LARGE,
    },
)

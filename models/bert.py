"""BERT: post-norm encoder over word, segment and position embeddings, with a pooler for classification."""

from onnxfuse.architecture import KERAS_LAYERS, KERAS_TEXT, TEXT_TASKS, TOKENS, Architecture, Count

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}

ARCHITECTURE = Architecture(
    model_type="bert",
    inputs={"input_ids": TOKENS, "attention_mask": TOKENS, "token_type_ids": TOKENS},
    layers="num_hidden_layers",
    tasks=TEXT_TASKS
    | {"next-sentence-prediction": "AutoModelForNextSentencePrediction", "pre-training": "AutoModelForPreTraining"},
    counts={"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)},
    heads={"fill-mask": {"layer_norm": 1, "gelu": 1}, "pre-training": {"layer_norm": 1, "gelu": 1}},
    shown_by=frozenset({"token_type_ids"}),
    keras_hub={
        "BertBackbone": KERAS_TEXT | KERAS_LAYERS | {"intermediate_dim": "intermediate_size", "num_segments": "type_vocab_size"}
    },
    checkpoints={
        "bert-base-uncased": {},
        "bert-base-cased": {"vocab_size": 28996},
        "bert-large-uncased": LARGE,
        "bert-large-cased": LARGE | {"vocab_size": 28996},
    },
)

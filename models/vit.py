"""ViT: pre-norm encoder over image patches and a class token; no mask."""

from onnxfuse.architecture import IMAGE_TASKS, IMAGES, KERAS_LAYERS, Architecture, Count

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
IMAGENET = {"num_labels": 1000}

ARCHITECTURE = Architecture(
    model_type="vit",
    inputs={"pixel_values": IMAGES},
    layers="num_hidden_layers",
    tasks=IMAGE_TASKS,
    counts={"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)},
    shown_by=frozenset({"pixel_values"}),
    keras_hub={
        "ViTBackbone": KERAS_LAYERS
        | {"mlp_dim": "intermediate_size", "patch_size": "patch_size", "layer_norm_epsilon": "layer_norm_eps"}
    },
    ort_optimizer="vit",
    checkpoints={
        "google/vit-base-patch16-224": IMAGENET,
        "google/vit-base-patch16-224-in21k": {},
        "google/vit-large-patch16-224": LARGE | IMAGENET,
    },
)

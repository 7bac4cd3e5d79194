"""DeiT: ViT with a second token, which learned from a teacher."""

from onnxfuse.architecture import IMAGE_TASKS, IMAGES, Architecture, Count

TINY = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
SMALL = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
IMAGENET = {"num_labels": 1000}

ARCHITECTURE = Architecture(
    model_type="deit",
    inputs={"pixel_values": IMAGES},
    layers="num_hidden_layers",
    tasks=IMAGE_TASKS,
    classes={"DeiTForImageClassificationWithTeacher": "image-classification"},
    counts={"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)},
    ort_optimizer="vit",
    checkpoints={
        "facebook/deit-tiny-distilled-patch16-224": TINY | IMAGENET,
        "facebook/deit-small-distilled-patch16-224": SMALL | IMAGENET,
        "facebook/deit-base-distilled-patch16-224": IMAGENET,
    },
)

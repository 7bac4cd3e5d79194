"""DINOv2: ViT whose layers scale what they add."""

from onnxfuse.architecture import IMAGE_TASKS, IMAGES, Architecture, Count

PATCHES = {"image_size": 518, "patch_size": 14}
SMALL = {"hidden_size": 384, "num_attention_heads": 6}
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
GIANT = {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True}

ARCHITECTURE = Architecture(
    model_type="dinov2",
    inputs={"pixel_values": IMAGES},
    layers="num_hidden_layers",
    tasks=IMAGE_TASKS,
    counts={"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)},
    gated="use_swiglu_ffn",
    ort_optimizer="vit",
    checkpoints={
        "facebook/dinov2-small": PATCHES | SMALL,
        "facebook/dinov2-base": PATCHES,
        "facebook/dinov2-large": PATCHES | LARGE,
        "facebook/dinov2-giant": PATCHES | GIANT,
    },
)

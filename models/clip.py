"""CLIP's two towers: a causal text encoder and a pre-norm encoder over image patches. Each is exported by itself."""

from onnxfuse.architecture import IMAGES, TOKENS, Architecture, Count, Tower

BASE = {"bos_token_id": 0, "eos_token_id": 2}
"""Not the tokenizer's ids: ``transformers`` then takes the largest id of a row as its last, as the checkpoints' own code does."""

LARGE = BASE | {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "projection_dim": 768}
LARGE_IMAGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
EMBED = "zero-shot-image-classification"
"""The task of the whole: each tower gives what is compared with the other's."""

COUNTS = {"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)}

TEXT = Architecture(
    model_type="clip_text_model",
    inputs={"input_ids": TOKENS, "attention_mask": TOKENS},
    layers="num_hidden_layers",
    tasks={EMBED: "CLIPTextModelWithProjection", "feature-extraction": "CLIPTextModel"},
    outputs={EMBED: ("text_embeds",)},
    counts=COUNTS,
    tower=Tower("clip", "text_config", ("text_model.", "text_projection."), ("projection_dim",)),
    ort_optimizer="clip",
    checkpoints={
        "openai/clip-vit-base-patch32": BASE,
        "openai/clip-vit-base-patch16": BASE,
        "openai/clip-vit-large-patch14": LARGE,
    },
)
IMAGE = Architecture(
    model_type="clip_vision_model",
    inputs={"pixel_values": IMAGES},
    layers="num_hidden_layers",
    tasks={EMBED: "CLIPVisionModelWithProjection", "feature-extraction": "CLIPVisionModel"},
    outputs={EMBED: ("image_embeds",)},
    counts=COUNTS,
    heads={EMBED: {"layer_norm": 1}},
    tower=Tower("clip", "vision_config", ("vision_model.", "visual_projection."), ("projection_dim",)),
    ort_optimizer="clip",
    checkpoints={
        "openai/clip-vit-base-patch32": {},
        "openai/clip-vit-base-patch16": {"patch_size": 16},
        "openai/clip-vit-large-patch14": LARGE_IMAGE | {"patch_size": 14, "projection_dim": 768},
    },
)

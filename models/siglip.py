"""SigLIP's two towers: a text encoder that looks both ways, and an encoder over image patches. Each is exported by itself."""

from onnxfuse.architecture import IMAGES, TOKENS, Architecture, Count, Tower

EMBED = "zero-shot-image-classification"
"""The task of the whole: each tower gives what is compared with the other's."""

COUNTS = {"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)}

TEXT = Architecture(
    model_type="siglip_text_model",
    inputs={"input_ids": TOKENS, "attention_mask": TOKENS},
    layers="num_hidden_layers",
    tasks={EMBED: "SiglipTextModel", "feature-extraction": "SiglipTextModel"},
    outputs={EMBED: ("pooler_output",)},
    counts=COUNTS,
    tower=Tower("siglip", "text_config", ("text_model.",)),
    ort_optimizer="clip",
    checkpoints={"google/siglip-base-patch16-224": {}},
)
IMAGE = Architecture(
    model_type="siglip_vision_model",
    inputs={"pixel_values": IMAGES},
    layers="num_hidden_layers",
    tasks={EMBED: "SiglipVisionModel", "feature-extraction": "SiglipVisionModel"},
    outputs={EMBED: ("pooler_output",)},
    counts=COUNTS,
    heads={EMBED: {"attention": 1, "layer_norm": 1, "gelu": 1}},  # one more query asks all patches
    tower=Tower("siglip", "vision_config", ("vision_model.",)),
    ort_optimizer="clip",
    checkpoints={"google/siglip-base-patch16-224": {}},
)

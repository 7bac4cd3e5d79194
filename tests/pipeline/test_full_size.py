"""One well-known checkpoint of every family at its full size, with random weights: `onnxfuse run --require all`, int8 too."""

import json
import re
import shutil
from dataclasses import dataclass

import pytest

from onnxfuse import catalog
from tests.pipeline.test_families import KEPT

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Named:
    """A checkpoint, how many layers it has, and what an int8 file of it may weigh beside the float one."""

    checkpoint: str
    layers: int
    size: float = 0.27


FULL = {
    "albert": Named("albert/albert-base-v2", 12),
    "bert": Named("bert-base-uncased", 12),
    "camembert": Named("almanach/camembert-base", 12),
    "clip_text_model": Named("openai/clip-vit-base-patch32", 12),
    "clip_vision_model": Named("openai/clip-vit-base-patch32", 12),
    "deberta-v2": Named("microsoft/deberta-v3-base", 12, 0.3),  # its scores of positions are tables, which are no linear layers
    "deit": Named("facebook/deit-base-distilled-patch16-224", 12),
    "dinov2": Named("facebook/dinov2-base", 12),
    "distilbert": Named("distilbert-base-uncased", 6),
    "electra": Named("google/electra-small-discriminator", 12),
    "modernbert": Named("answerdotai/ModernBERT-base", 22),
    "mpnet": Named("microsoft/mpnet-base", 12),
    "roberta": Named("FacebookAI/roberta-base", 12),
    "siglip_text_model": Named("google/siglip-base-patch16-224", 12),
    "siglip_vision_model": Named("google/siglip-base-patch16-224", 12),
    "vit": Named("google/vit-base-patch16-224", 12),
    "xlm-roberta": Named("FacebookAI/xlm-roberta-base", 12),
}


def test_every_family_has_its_row():
    assert sorted(FULL) == sorted(catalog.families())


@pytest.mark.parametrize("family", sorted(FULL))
def test_the_whole_chain(process, tmp_path, family):
    """In a process of its own, which gives its memory back; the files go, whatever came out."""
    named = FULL[family]
    try:
        asked = ("--random-weights", "--model-type", family, "--exporter", "torchscript", "--require", "all")
        done = process("run", named.checkpoint, *asked, "-o", "out", "--rounds", "1", "--length", "16", "--json")
    finally:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    fused = made["optimize"]["fused"]
    stays = named.layers if family == "deberta-v2" else 0
    assert (fused["unfused"], fused["attention"] >= named.layers - stays) == (stays, True)
    assert re.fullmatch(KEPT.get(family, "removed"), made["optimize"]["padding"])
    assert made["quantize"]["size_ratio"] <= named.size
    compared = {row["name"]: row["parity"]["passed"] for row in made["results"] if row["parity"] is not None}
    assert compared == {"ONNX": True, "optimized": True, "int8": True}

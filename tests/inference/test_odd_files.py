"""A service opens folders of strangers: whatever a field beside a model holds, the answer is one, or one line."""

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import onnxfuse
from onnxfuse.errors import OnnxfuseError
from onnxfuse.inference import embeddings

ODD = (
    None,
    True,
    -1,
    0,
    3,
    1e300,
    float("nan"),
    float("inf"),
    1 << 70,
    "x",
    "",
    [],
    {},
    [[1]],
    {"content": 3},
    ["a", None],
    {"a": 1},
)
FIELDS = {
    "tokenizer_config.json": (
        "model_max_length",
        "padding_side",
        "truncation_side",
        "mask_token",
        "cls_token",
        "model_input_names",
        "clean_up_tokenization_spaces",
    ),
    "sentence_bert_config.json": ("max_seq_length", "do_lower_case"),
    "config_sentence_transformers.json": ("prompts", "default_prompt_name"),
    "config.json": ("problem_type", "id2label", "onnxfuse_task", "model_type", "pad_token_id", "max_position_embeddings"),
    "preprocessor_config.json": (
        "image_processor_type",
        "size",
        "crop_size",
        "resample",
        "rescale_factor",
        "image_mean",
        "image_std",
        "do_resize",
        "do_center_crop",
        "do_normalize",
        "do_rescale",
        "do_pad",
    ),
}


TEXT, IMAGE = "a [MASK] b", np.zeros((9, 7, 3), np.uint8)
USES = {
    "preprocessor_config.json": (lambda model: model.classify(IMAGE),),
    "config_sentence_transformers.json": (lambda model: embeddings.prompt_of(model._serving, None, None),),
    "config.json": (lambda model: model.fill(TEXT), lambda model: model.classify(TEXT)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_odd_fields_are_taken_or_refused_in_one_line(made, tmp_path, name):
    """Never another error, nor one over two lines."""
    image = name == "preprocessor_config.json"
    kind = ("vit", "ViTForImageClassification") if image else ("bert", "BertForMaskedLM")
    folder = shutil.copytree(made(*kind, **({"num_labels": 5} if image else {}))[1], tmp_path / "made")
    path = folder / name
    said = json.loads(path.read_text()) if path.exists() else {}
    opened, ended = onnxfuse.load(folder, threads=1), set()
    for field, odd in itertools.product(FIELDS[name], ODD):
        path.write_text(json.dumps(said | {field: odd}))
        for use in USES.get(name, (lambda model: model.fill(TEXT),)):
            try:
                use(replace(opened))  # the same session, and nothing read yet
                ended.add("answered")
            except OnnxfuseError as error:
                assert "\n" not in str(error), (field, odd)
                ended.add("refused")
    assert ended == {"answered", "refused"}

"""A service has neither torch nor transformers: all uses run without them, and say what is missing where something is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import onnxfuse
from onnxfuse.errors import MissingExtraError, UsageError

BLOCKED = """
import json, sys
for name in ("torch", "transformers", "sentence_transformers", "huggingface_hub", "safetensors", "scipy", "sklearn"):
    sys.modules[name] = None
import onnxfuse
sentence, classes, questions, masks, images, picture = sys.argv[1:]
print(json.dumps([
    onnxfuse.load(classes, threads=1).classify(["one", ("two", "words")], top=None),
    onnxfuse.load(questions, threads=1).answer("what", "a word or two of it", top=2),
    onnxfuse.load(masks, threads=1).fill("the [MASK] word"),
    onnxfuse.load(images, threads=1).classify(picture),
]))
"""


def test_all_uses_run_without_torch_and_transformers(made, tmp_path):
    folders = [
        made("bert", "BertForSequenceClassification", id2label={0: "good", 1: "bad", 2: "so so"})[1],
        made("bert", "BertForQuestionAnswering")[1],
        made("bert", "BertForMaskedLM")[1],
        made("vit", "ViTForImageClassification", num_labels=5)[1],
    ]
    picture = tmp_path / "a.png"
    Image.fromarray(np.arange(48 * 3, dtype=np.uint8).reshape(6, 8, 3)).save(picture)
    environment = os.environ | {"PYTHONPATH": str(Path(onnxfuse.__file__).parents[1])}
    command = [sys.executable, "-c", BLOCKED, "", *map(str, folders), str(picture)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert ended.returncode == 0, ended.stderr
    models = [onnxfuse.load(folder, threads=1) for folder in folders]
    assert json.loads(ended.stdout) == [
        models[0].classify(["one", ("two", "words")], top=None),
        models[1].answer("what", "a word or two of it", top=2),
        models[2].fill("the [MASK] word"),
        models[3].classify(picture),
    ]


@pytest.mark.parametrize(("package", "use"), [("tokenizers", "texts"), ("PIL", "images")])
def test_the_extra_is_named_where_it_is_missing(made, monkeypatch, package, use):
    monkeypatch.setitem(sys.modules, package, None)
    folder = made("bert", "BertForMaskedLM")[1] if use == "texts" else made("vit", "ViTForImageClassification", num_labels=5)[1]
    model = onnxfuse.load(folder)
    with pytest.raises(MissingExtraError, match=rf"reading {use} needs .* pip install 'onnxfuse\[text\]'"):
        model.fill("a [MASK]") if use == "texts" else model.classify("a.png")


def test_a_model_that_takes_something_else_says_so(tmp_path, made):
    image = made("vit", "ViTForImageClassification", num_labels=5)[1]
    with pytest.raises(UsageError, match="encode needs sentence_embedding of a model of sentence-similarity"):
        onnxfuse.load(image).encode("a")
    with pytest.raises(UsageError, match=r"a is not there; give the path of a file"):
        onnxfuse.load(image).classify("a")

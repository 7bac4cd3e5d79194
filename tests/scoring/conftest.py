"""Models of each task that decide now this, now that, with tokenizers that know the sentences of the data."""

import random

import numpy as np
import pytest
import torch
import transformers

import onnxfuse
from onnxfuse.evaluation.sentences import docstring_sentences
from tests.families import tiny
from tests.inference.conftest import words  # noqa: F401 - a fixture


@pytest.fixture(scope="package")
def sentences():
    """Quotes among them that nothing closes, as published files hold them."""
    found = [" ".join(text.split()) for text in docstring_sentences(400)]
    return [f'"{text}' if at % 7 == 0 else text for at, text in enumerate(found)]


@pytest.fixture
def pick():
    return random.Random(0)


@pytest.fixture(scope="package")
def made(tmp_path_factory, words, sentences):  # noqa: F811
    """Makes a checkpoint of a class, and its export: their folders. Each is made once.

    Args of a call: the classes' names, or how many numbers the model gives; none of a model without a head.
    """
    known = {}

    def make(family, head, labels=None, task=None, pairs=False):
        key = (family, head, repr(labels), task, pairs)
        if key not in known:
            source, folder = tmp_path_factory.mktemp("checkpoint"), tmp_path_factory.mktemp("exported")
            named = {} if labels is None else {"num_labels": labels if isinstance(labels, int) else len(labels)}
            if isinstance(labels, list):
                named |= {"id2label": dict(enumerate(labels)), "label2id": {name: at for at, name in enumerate(labels)}}
            sizes = {} if family == "vit" else {"vocab_size": len(words)}
            model = tiny(family, head, **sizes | named)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter *= 1.5
                if labels is not None:
                    _even(model, words, sentences, pairs)
            model.save_pretrained(source)
            beside = words if family != "vit" else transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
            beside.save_pretrained(source)
            onnxfuse.export(source, folder, exporter="torchscript", task=task)
            known[key] = source, folder
        return known[key]

    return make


def _even(model, tokenizer, sentences, pairs):
    """No class is likelier than another: without training, one of them is all that a model says."""
    if model.config.model_type == "vit":
        rng = np.random.default_rng(0)
        given = {"pixel_values": torch.tensor(rng.uniform(-1, 1, (32, 3, 32, 32)), dtype=torch.float32)}
    else:
        given = tokenizer(
            sentences[:64], sentences[64:128] if pairs else None, truncation=True, padding=True, return_tensors="pt"
        )
    head = getattr(model, "classifier", None)
    head = model.qa_outputs if head is None else head
    head.weight *= 20
    logits = model(**given)
    rows = torch.stack([logits.start_logits, logits.end_logits], -1) if hasattr(logits, "start_logits") else logits.logits
    head.bias -= rows.reshape(-1, rows.shape[-1]).mean(dim=0)

"""Model.fill gives what the fill-mask pipeline gives, without it."""

import json
import shutil

import numpy as np
import pytest
import transformers

import onnxfuse
from onnxfuse.errors import UsageError
from tests.inference.conftest import SENTENCES

HEADS = {"bert": "BertForMaskedLM", "roberta": "RobertaForMaskedLM"}


def masked(word, at):
    """Sentences of a few words, the one in the place ``at`` behind a mask."""
    found = [text.split()[:7] for text in SENTENCES[:12]]
    return [" ".join([*text[:at], word, *text[at + 1 :]]) for text in found]


def same(got, wanted):
    assert [(each["token"], each["token_str"], each["sequence"]) for each in got] == [
        (each["token"], each["token_str"], each["sequence"]) for each in wanted
    ]
    assert np.abs(np.subtract([each["score"] for each in got], [each["score"] for each in wanted])).max() < 1e-5
    return True


@pytest.mark.parametrize("family", HEADS)
def test_masks_are_filled_as_by_the_pipeline(made, family):
    source, folder = made(family, HEADS[family])
    original = transformers.pipeline("fill-mask", model=str(source), device="cpu")
    word, model = original.tokenizer.mask_token, onnxfuse.load(folder)
    for at in (0, 2):
        texts = masked(word, at)
        got = model.fill(texts, batch=5)
        wanted = original(texts, tokenizer_kwargs={"truncation": True})
        assert all(same(*each) for each in zip(got, wanted, strict=True))
    assert same(model.fill(f"the {word} one", top=3), original(f"the {word} one", top_k=3))
    two = f"a {word}, or the {word}."
    assert all(same(*each) for each in zip(model.fill(two, top=2), original(two, top_k=2), strict=True))
    assert model.fill([]) == []


def test_spaces_are_tidied_where_the_tokenizer_asks(made, tmp_path):
    source, folder = (shutil.copytree(place, tmp_path / place.name) for place in made("bert", HEADS["bert"]))
    for place in (source, folder):
        read = json.loads((place / "tokenizer.json").read_text())
        read["decoder"]["cleanup"] = False
        (place / "tokenizer.json").write_text(json.dumps(read))
        said = json.loads((place / "tokenizer_config.json").read_text())
        (place / "tokenizer_config.json").write_text(json.dumps(said | {"clean_up_tokenization_spaces": True}))
    original = transformers.pipeline("fill-mask", model=str(source), device="cpu")
    text = "[MASK], as it is."
    assert same(onnxfuse.load(folder).fill(text), original(text))


@pytest.mark.parametrize("name", ["mask_token", "all"])
def test_the_mask_is_known_where_the_settings_do_not_name_it(made, tmp_path, name):
    folder = shutil.copytree(made("bert", HEADS["bert"])[1], tmp_path / "made")
    wanted = onnxfuse.load(folder).fill("a [MASK]")
    said = json.loads((folder / "tokenizer_config.json").read_text())
    del said["mask_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps({} if name == "all" else said))
    assert onnxfuse.load(folder).fill("a [MASK]") == wanted
    (folder / "special_tokens_map.json").write_text(json.dumps({"mask_token": {"content": "the"}}))
    with pytest.raises(UsageError, match="text 1 has no the in its first"):
        onnxfuse.load(folder).fill("a [MASK]")


def test_a_text_without_a_mask_is_named(made):
    model = onnxfuse.load(made("bert", HEADS["bert"])[1])
    for texts, number in (("none", 1), (["a [MASK]", "none"], 2), (["word " * 30 + "[MASK]"], 1)):
        with pytest.raises(UsageError, match=rf"text {number} has no \[MASK\] in its first 24 tokens"):
            model.fill(texts)
    with pytest.raises(UsageError, match="top is 0, wanted how many tokens"):
        model.fill("a [MASK]", top=0)


def test_a_tokenizer_without_a_mask_is_named(made, tmp_path):
    folder = shutil.copytree(made("bert", HEADS["bert"])[1], tmp_path / "made")
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("[MASK]", "[MISS]"))
    with pytest.raises(UsageError, match=r"the tokenizer in .* has no mask token; fill needs one"):
        onnxfuse.load(folder).fill("a [MASK]")

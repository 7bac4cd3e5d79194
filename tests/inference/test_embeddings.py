"""Model.encode gives what SentenceTransformer.encode gives, without it."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import sentence_transformers
from sentence_transformers.sentence_transformer import modules

import onnxfuse
from onnxfuse.errors import ModelError, UsageError
from tests.families import tiny
from tests.inference.conftest import SENTENCES

CLOSE = 2e-5  # as tests/exporters/test_sentence.py


@pytest.fixture(scope="module")
def original(tmp_path_factory, words):
    """A sentence encoder whose pooling leaves its prompts out, cut at 20 tokens."""
    inside, folder = tmp_path_factory.mktemp("encoder"), tmp_path_factory.mktemp("saved")
    tiny("bert", "BertModel", vocab_size=len(words)).save_pretrained(inside)
    words.save_pretrained(inside)
    encoder = modules.Transformer(str(inside), max_seq_length=20)
    chain = [encoder, modules.Pooling(32, pooling_mode="mean", include_prompt=False), modules.Dense(32, 24), modules.Normalize()]
    prompts = {"query": "find this: ", "document": "the "}
    model = sentence_transformers.SentenceTransformer(
        modules=chain, prompts=prompts, default_prompt_name="document", device="cpu"
    )
    model.save(str(folder))
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu"), folder


@pytest.fixture(scope="module")
def folder(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    onnxfuse.export(original[1], folder, exporter="torchscript")
    onnxfuse.optimize(folder)
    return folder


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the export to change."""
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize("given", [{}, {"prompt_name": "query"}, {"prompt": "so be it "}, {"prompt": ""}])
def test_texts_are_encoded_as_by_the_checkpoint(original, folder, given):
    model, wanted = onnxfuse.load(folder), original[0].encode(SENTENCES, **given)
    for batch in (1, 7, 32):
        got = model.encode(SENTENCES, **given, batch=batch)
        assert (got.dtype, got.shape) == (np.float32, (60, 24))
        assert np.abs(got - wanted).max() < CLOSE
    one = model.encode(SENTENCES[3], **given)
    assert one.shape == (24,) and np.abs(one - wanted[3]).max() < CLOSE


def test_a_text_that_is_empty_or_strange_is_encoded_too(original, folder):
    texts = ["", " \t", "\u4f60\u597d 😀", "x" * 5000, "[SEP] [MASK]", "a\x00b"]
    assert np.abs(onnxfuse.load(folder).encode(texts) - original[0].encode(texts)).max() < CLOSE


def test_nothing_gives_nothing(folder):
    assert onnxfuse.load(folder).encode([]).shape == (0, 24)
    assert onnxfuse.load(folder).encode(iter(SENTENCES[:2])).shape == (2, 24)


def test_threads_share_a_model(folder):
    model = onnxfuse.load(folder, threads=1)
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda start: model.encode(SENTENCES[start : start + 15], batch=4), range(0, 60, 15)))
    assert np.abs(np.concatenate(parts) - model.encode(SENTENCES, batch=4)).max() < CLOSE


def test_more_texts_than_are_held_at_a_time(original, folder, monkeypatch):
    monkeypatch.setattr("onnxfuse.inference.serving.BLOCK", 25)
    assert np.abs(onnxfuse.load(folder).encode(SENTENCES, batch=4) - original[0].encode(SENTENCES)).max() < CLOSE


def fixed(folder, **sizes):
    onnxfuse.optimize(folder / "model.onnx", output=folder / "model_optimized.onnx", overwrite=True, verify="off", **sizes)


@pytest.mark.parametrize("sizes", [{"batch": 8, "length": 20}, {"batch": 3}])
def test_models_of_fixed_sizes_are_filled_up_to_them(original, copied, sizes):
    fixed(copied, **sizes)
    got = onnxfuse.load(copied).encode(SENTENCES[:10], prompt_name="query")
    assert np.abs(got - original[0].encode(SENTENCES[:10], prompt_name="query")).max() < CLOSE


def test_a_shorter_model_cuts_sooner(original, copied):
    fixed(copied, length=8)
    short = sentence_transformers.SentenceTransformer(str(original[1]), device="cpu")
    short.max_seq_length = 8
    assert np.abs(onnxfuse.load(copied).encode(SENTENCES) - short.encode(SENTENCES)).max() < CLOSE


def edited(folder, name, **fields):
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | fields))


def test_letters_are_made_small_where_the_checkpoint_asks(original, tmp_path, copied):
    """As sentence-transformers does it, before a tokenizer that knows capitals."""
    saved = shutil.copytree(original[1], tmp_path / "saved")
    for place in (saved, copied):
        read = json.loads((place / "tokenizer.json").read_text())
        read["normalizer"]["lowercase"] = False
        (place / "tokenizer.json").write_text(json.dumps(read))
        edited(place, "tokenizer_config.json", do_lower_case=False)
    texts = [text.title() for text in SENTENCES[:20]]
    for asked in (False, True):
        for place in (saved, copied):
            edited(place, "sentence_bert_config.json", do_lower_case=asked)
        wanted = sentence_transformers.SentenceTransformer(str(saved), device="cpu").encode(texts)
        assert np.abs(onnxfuse.load(copied).encode(texts) - wanted).max() < CLOSE, asked


def test_padding_may_stand_on_the_left(original, copied):
    """The graph's pooling leaves out what the first tokens are, wherever they stand."""
    edited(copied, "tokenizer_config.json", padding_side="left")
    alone = [onnxfuse.load(copied).encode(text, prompt="") for text in SENTENCES[:8]]
    assert np.abs(alone - original[0].encode(SENTENCES[:8], prompt="")).max() < CLOSE
    tokens = onnxfuse.load(copied)._serving.tokens
    made = tokens.encoded(["a", "a b c"])
    rows = tokens.rows(made, 0, 9)
    assert rows.keep.tolist() == [[False] * 6 + [True] * 3, [False] * 4 + [True] * 5]
    assert rows.columns["input_ids"][0, 6:].tolist() == made[0].ids


def test_the_side_of_padding_and_cutting_is_found_where_it_stands(original, copied):
    """tokenizer.json says it where tokenizer_config.json does not, and sentence_bert_config.json over both."""
    edited(copied, "tokenizer_config.json", padding_side=None, truncation_side=None)
    settings = json.loads((copied / "tokenizer_config.json").read_text())
    kept = {name: value for name, value in settings.items() if not name.endswith("_side")}
    (copied / "tokenizer_config.json").write_text(json.dumps(kept))
    padding = {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
    cut = {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    edited(copied, "tokenizer.json", padding=padding | {"pad_token": "[PAD]"}, truncation=cut)
    tokens = onnxfuse.load(copied)._serving.tokens
    assert tokens.left and tokens.cut.truncation["direction"] == "left"
    edited(copied, "sentence_bert_config.json", processing_kwargs={"text": {"padding_side": "right", "max_length": 7}})
    tokens = onnxfuse.load(copied)._serving.tokens
    assert (tokens.left, tokens.longest) == (False, 7)
    edited(copied, "sentence_bert_config.json", processing_kwargs={"common": {"padding": True, "add_special_tokens": False}})
    with pytest.raises(ModelError, match=r"asks the tokenizer for add_special_tokens False, which is not done here; encode with"):
        onnxfuse.load(copied).encode("a")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (({"texts": 3}), r"int given, wanted a text, or a list of these"),
        (({"texts": b"a"}), r"bytes given"),
        (({"texts": ["a", None]}), r"text 2 is NoneType, wanted a text"),
        (({"texts": ["a", "\ud800"]}), r"text 2 holds half a character"),
        (({"texts": "a", "prompt_name": "odd"}), r"no prompt named 'odd' in .*; it has document, query"),
        (({"texts": "a", "prompt_name": "query", "prompt": "b"}), r"prompt and prompt_name are given"),
        (({"texts": "a", "prompt": 3}), r"prompt is int, wanted a text"),
        (({"texts": "a", "batch": 0}), r"batch is 0, wanted the rows"),
    ],
)
def test_what_cannot_be_encoded_is_refused_in_one_line(folder, given, said):
    with pytest.raises(UsageError, match=said) as error:
        onnxfuse.load(folder).encode(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("use", ["classify", "fill"])
def test_other_uses_of_a_sentence_encoder_name_what_they_need(folder, use):
    with pytest.raises(UsageError, match=rf"was exported for sentence-similarity; {use} needs logits"):
        getattr(onnxfuse.load(folder), use)("a")


@pytest.mark.parametrize(
    ("name", "text", "kind", "said"),
    [
        ("tokenizer.json", None, UsageError, r"has no tokenizer\.json, which makes tokens of texts"),
        ("tokenizer.json", "{", ModelError, r"tokenizer\.json cannot be read as a tokenizer"),
        ("tokenizer.json", "", ModelError, r"tokenizer\.json is empty"),
        ("tokenizer_config.json", "[]", ModelError, r"tokenizer_config\.json holds a JSON list"),
        ("tokenizer_config.json", '{"padding_side": "up"}', ModelError, r"has 'up' as padding_side, wanted left or right"),
        ("sentence_bert_config.json", '{"max_seq_length": 3}', ModelError, r"cut at 3 tokens, which leaves none"),
        ("config_sentence_transformers.json", '{"prompts": [1]}', ModelError, r"has \[1\] as prompts"),
    ],
)
def test_files_that_are_broken_are_named(copied, name, text, kind, said):
    (copied / name).unlink()
    if text is not None:
        (copied / name).write_text(text)
    with pytest.raises(kind, match=said) as error:
        onnxfuse.load(copied).encode("a")
    assert "\n" not in str(error.value)


def test_a_tokenizer_elsewhere_is_not_read(copied, tmp_path):
    shutil.move(copied / "tokenizer.json", tmp_path / "other.json")
    (copied / "tokenizer.json").symlink_to(tmp_path / "other.json")
    with pytest.raises(ModelError, match="lies outside"):
        onnxfuse.load(copied).encode("a")


def test_a_tokenizer_of_another_model_is_refused(copied):
    read = json.loads((copied / "tokenizer.json").read_text())
    read["model"]["vocab"]["a"] = 99_999
    (copied / "tokenizer.json").write_text(json.dumps(read))
    with pytest.raises(ModelError, match=r"the tokenizer in .* holds 99999, .* they do not belong together"):
        onnxfuse.load(copied).encode("a")

"""A checkpoint's files: broken, odd or of an old layout, each is read rightly or refused in one line."""

import json
import os
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from onnxfuse.config import ExportConfig
from onnxfuse.errors import ExportError, ModelError, StorageError, UsageError
from onnxfuse.exporters import open_checkpoint
from onnxfuse.io import folders, onnx_file
from onnxfuse.pipeline.export import export
from tests.cli.test_cli import expect_one_line
from tests.conftest import BERT, messages, small_model

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 438\n"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    small_model("bert", "AutoModelForSequenceClassification", layers=1).save_pretrained(folder / "classifier")
    small_model("bert", "AutoModel", layers=1).save_pretrained(folder / "encoder")
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """A copy of a checkpoint, with these files beside it."""

    def make(name="classifier", place="source", **beside):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        for path in (saved / name).iterdir():
            os.link(path, folder / path.name)
        for file, content in beside.items():
            write(folder / file, content)
        return folder

    return make


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def test_weights_that_are_not_whole(cli, copy):
    folder = copy()
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    named = "source/model.safetensors "
    for content, words in (
        (POINTER, "is a git-lfs pointer, not the file itself; fetch it with: git lfs pull"),
        (b"", "is empty"),
        (whole[: len(whole) // 2], "cannot be read as a whole safetensors file"),
        (whole[:6], "cannot be read as a whole safetensors file"),
        (b'\x08\0\0\0\0\0\0\0{"a": [}', "cannot be read as a whole safetensors file"),
        (b"<!DOCTYPE html>" * 9, "cannot be read as a whole safetensors file"),
        (whole + b"more", "cannot be read as a whole safetensors file"),
    ):
        write(path, content)
        expect_one_line(cli("export", "source"), 4, named, words)
    path.unlink()
    path.mkdir()
    expect_one_line(cli("export", "source"), 4, named, "is a folder, not a file")
    path.rmdir()
    path.symlink_to("nowhere")
    expect_one_line(cli("export", "source"), 4, named, "is a link to what is not there")


def test_weights_in_several_files(cli, copy, tmp_path):
    folder = copy()
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = {f"model-0000{at}-of-00002.safetensors": dict(list(weights.items())[at::2]) for at in (0, 1)}
    for name, half in halves.items():
        save_file(half, folder / name, {"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, half in halves.items() for name in half}}
    write(folder / "model.safetensors.index.json", index)
    (folder / "tf_model.h5").write_bytes(b"no weights")  # PyTorch's come before it, with --framework pt or without
    for framework in (None, "pt"):
        checkpoint = open_checkpoint(folder, framework=framework)
        assert str(checkpoint) == "PyTorch"
        assert all(torch.equal(value, weights[name]) for name, value in checkpoint.module.model.state_dict().items())
    for content, words in (
        ("{", "is not JSON"),
        ([], "holds a JSON list"),
        ({"weight_map": []}, "has no weight_map that names files"),
        ({"weight_map": {"w": "../model.safetensors"}}, "names ../model.safetensors, which is not beside it"),
    ):
        write(folder / "model.safetensors.index.json", content)
        assert words in one_line(cli("export", "source"))
    write(folder / "model.safetensors.index.json", index)
    (folder / "model-00001-of-00002.safetensors").unlink()
    expect_one_line(
        cli("export", "source"), 4, "names model-00001-of-00002.safetensors, which is not beside it; download it again"
    )


def one_line(result):
    assert result.returncode in (3, 4) and len(messages(result.stderr)) == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_float_types(copy, kind):
    folder = copy()
    weights = {name: value.to(kind) for name, value in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    loaded = open_checkpoint(folder).module.model.state_dict()
    assert all(torch.equal(value, weights[name].float()) for name, value in loaded.items())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (torch.int8, "is int8 [2, 128], config.json wants [2, 128]"),
        (torch.float8_e4m3fn, "stores classifier.weight as F8_E4M3, wanted F64, F32, F16, BF16"),
    ],
)
def test_quantized_weights(copy, kind, words):
    folder = copy()
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] = weights["classifier.weight"].to(kind)
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError) as raised:
        open_checkpoint(folder)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        ("", 3, "config.json is empty"),
        ("{", 3, "config.json is not JSON"),
        (POINTER, 3, "config.json is a git-lfs pointer"),
        ("[1]", 3, "config.json holds a JSON list, wanted an object"),
        (b"\xff\xfe{", 3, "config.json is not JSON"),
        ("[" * 100_000, 3, "config.json holds JSON nested deeper than 64"),
        ({}, 3, "config.json has no model_type; if it is one of albert, bert, "),
        ({"model_type": ["bert"]}, 3, "model type ['bert'] is not supported"),
        ({"model_type": "robertta"}, 3, "model type 'robertta' is not supported (roberta and xlm-roberta and "),
        ({"architectures": 5}, 3, "config.json has 5 as architectures, wanted a list with the name of a class"),
        (
            {"model_type": "beit"},
            3,
            "are near); onnxfuse knows ",
        ),
        ({"hidden_size": "128"}, 4, "cannot read config.json of source:"),
        ({"intermediate_size": 256.5}, 4, "cannot read config.json of source:"),
        ({"hidden_act": "shrug"}, 4, "cannot load source as BertForSequenceClassification"),
        ({"num_attention_heads": 5}, 4, "cannot load source as BertForSequenceClassification"),
        ({"quantization_config": {"quant_method": "gptq"}}, 4, "has quantized weights"),
    ],
)
def test_a_config_that_cannot_be_read(cli, copy, content, code, words):
    folder = copy()
    known = json.loads((folder / "config.json").read_text())
    changed = (
        content
        if not isinstance(content, dict)
        else known | content
        if content
        else {name: value for name, value in known.items() if name != "model_type"}
    )
    write(folder / "config.json", changed)
    expect_one_line(cli("export", "source"), code, words)


def test_a_config_without_a_model_type_that_is_asked_for(cli, copy):
    folder = copy()
    known = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", {name: value for name, value in known.items() if name != "model_type"})
    assert open_checkpoint(folder, model_type="bert").family.model_type == "bert"


@pytest.mark.parametrize(
    "fields",
    [
        {"output_attentions": True},
        {"output_hidden_states": True},
        {"return_dict": False},
        {"torchscript": True},
        {"chunk_size_feed_forward": 1},
        {"_attn_implementation": "flash_attention_2"},
        {"torch_dtype": "float16"},
    ],
)
def test_how_a_class_returns_is_no_matter(copy, tmp_path, fields):
    folder = copy()
    write(folder / "config.json", json.loads((folder / "config.json").read_text()) | fields)
    step = export(ExportConfig(str(folder), tmp_path / "out", exporter="torchscript"))
    assert step.parity.passed
    assert [value.name for value in onnx_file.load(step.path).graph.outputs] == ["logits"]


def test_no_config_at_all(cli, copy, tmp_path):
    folder = copy()
    (folder / "config.json").unlink()
    expect_one_line(cli("export", "source"), 4, "cannot load the checkpoint in source: it has no config.json")
    write(folder / "adapter_config.json", {})
    expect_one_line(cli("export", "source"), 4, "it has an adapter (adapter_config.json): merge it into its model")
    copy(place="adapted", **{"adapter_config.json": {}})
    expect_one_line(cli("export", "adapted"), 4, "has an adapter (adapter_config.json), which onnxfuse does not apply")


def test_a_tokenizer_that_is_not_there_in_truth(cli, copy):
    for name in folders.PROCESSOR_FILES:
        folder = copy(place=name, **{name: POINTER})
        expect_one_line(cli("export", folder), 3, f"{name}/{name} is a git-lfs pointer")
    expect_one_line(cli("export", copy(place="cut", **{"tokenizer.json": '{"a": '})), 3, "tokenizer.json is not JSON")


# Sentence encoders -----------------------------------------------------------------------------------------------


def modules(*named):
    return [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(named)
    ]


MEAN = {"word_embedding_dimension": 128, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}


@pytest.mark.parametrize(
    ("folder", "config", "mode"),
    [
        ("1_Pooling", MEAN, "mean"),
        ("pooling", MEAN, "mean"),
        ("parts/pool", {"embedding_dimension": 128, "pooling_mode": "cls", "include_prompt": True}, "cls"),
    ],
)
def test_pooling_where_modules_json_names_it(copy, tmp_path, folder, config, mode):
    source = copy(
        "encoder",
        **{
            "modules.json": modules(("", "Transformer"), (folder, "Pooling"), ("2_Normalize", "Normalize")),
            f"{folder}/config.json": config,
        },
    )
    outputs = ("sentence_embedding", "token_embeddings")
    step = export(ExportConfig(str(source), tmp_path / "out", exporter="torchscript", outputs=outputs))
    checkpoint = step.checkpoint
    assert checkpoint.task == "sentence-similarity"
    assert [value.name for value in onnx_file.load(step.path).graph.outputs] == ["sentence_embedding", "token_embeddings"]
    assert json.loads((tmp_path / "out" / folder / "config.json").read_text()) == config
    sentence, tokens = checkpoint.module(
        torch.arange(6)[None], torch.tensor([[1, 1, 1, 1, 0, 0]]), torch.zeros(1, 6, dtype=torch.long)
    )
    wanted = tokens[0, :4].mean(0) if mode == "mean" else tokens[0, 0]
    torch.testing.assert_close(sentence[0], wanted / wanted.norm())


def test_an_encoder_in_a_folder_of_its_own(copy, tmp_path):
    copy("encoder", place="source/0_Transformer", **{"tokenizer_config.json": {"model_max_length": 64}})
    source = tmp_path / "source"
    write(source / "modules.json", modules(("0_Transformer", "Transformer"), ("1_Pooling", "Pooling")))
    write(source / "1_Pooling" / "config.json", MEAN)
    step = export(ExportConfig(str(source), tmp_path / "out", exporter="torchscript"))
    checkpoint = step.checkpoint
    assert checkpoint.task == "sentence-similarity"
    assert step.parity.passed
    laid = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert laid == {
        "model.onnx",
        "config.json",
        "onnxfuse.json",
        "modules.json",
        "1_Pooling/config.json",
        "tokenizer_config.json",
    }
    assert [module["path"] for module in json.loads((tmp_path / "out" / "modules.json").read_text())] == ["", "1_Pooling"]
    again = export(ExportConfig(str(source), tmp_path / "tokens", task="feature-extraction", exporter="torchscript"))
    assert [value.name for value in onnx_file.load(again.path).graph.outputs] == ["last_hidden_state"]


@pytest.mark.parametrize(
    ("named", "pooling", "transformer", "words"),
    [
        (
            modules(("", "Transformer"), ("1_Pooling", "Pooling"), ("2_LSTM", "LSTM")),
            MEAN,
            None,
            "asks for Transformer -> Pooling -> LSTM",
        ),
        (modules(("", "Transformer"), ("1", "SpladePooling")), None, None, "asks for transformer_task 'feature-extraction'"),
        (modules(("", "Transformer"), ("1_Normalize", "Normalize")), None, None, "has Normalize in front of the pooling"),
        (
            modules(("", "Transformer"), ("1_Pooling", "Pooling"), ("1_Pooling", "Pooling")),
            MEAN,
            None,
            "has Pooling behind another pooling",
        ),
        (modules(("", "Transformer"), ("1_Dropout", "Dropout")), None, None, "asks for no pooling"),
        (modules(("", "StaticEmbedding")), None, None, "asks for StaticEmbedding"),
        (
            [{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": "1_Pooling", "type": "custom.Pooling"}],
            MEAN,
            None,
            "asks for Transformer -> custom.Pooling",
        ),
        (
            modules(("", "Transformer"), ("1_Pooling", "Pooling")),
            {"pooling_mode": ["mean", "median"]},
            None,
            "its pooling is mean and median",
        ),
        (
            modules(("", "Transformer"), ("1_Pooling", "Pooling")),
            MEAN | {"pooling_mode_median_tokens": True},
            None,
            "its pooling is mean and pooling_mode_median_tokens",
        ),
        (
            modules(("", "Transformer"), ("1_Pooling", "Pooling")),
            {"word_embedding_dimension": 128},
            None,
            "its pooling is of no kind",
        ),
        (
            modules(("", "Transformer"), ("1_Pooling", "Pooling")),
            MEAN | {"skip_first": 2},
            None,
            "asks for skip_first, which onnxfuse does not know",
        ),
        (
            modules(("", "Transformer"), ("1_Pooling", "Pooling")),
            MEAN,
            {"transformer_task": "fill-mask"},
            "asks for transformer_task 'fill-mask'",
        ),
        (
            modules(("", "Transformer"), ("1_Pooling", "Pooling")),
            MEAN,
            {"query_length": 32},
            "asks for query_length, which onnxfuse does not know",
        ),
    ],
)
def test_what_modules_ask_for_and_is_not_exported(cli, copy, named, pooling, transformer, words):
    beside = {"modules.json": named, "1_Pooling/config.json": pooling, "sentence_bert_config.json": transformer}
    copy("encoder", **{name: content for name, content in beside.items() if content is not None})
    expect_one_line(cli("export", "source"), 4, words, "--task feature-extraction")
    if named[0]["type"].endswith("Transformer"):  # the advice is true
        result = cli("export", "source", "--task", "feature-extraction", "--exporter", "torchscript", "-o", "out")
        assert result.returncode == 0, result.stderr


def test_a_transformer_alone_is_asked_for_one_task(cli, copy):
    """A cross-encoder, as sentence-transformers 6 saves it."""
    task = {"transformer_task": "sequence-classification", "module_output_name": "scores"}
    source = copy(**{"modules.json": modules(("", "Transformer")), "sentence_bert_config.json": task})
    assert open_checkpoint(source).task == "text-classification"
    write(source / "sentence_bert_config.json", {"transformer_task": "text-generation"})
    expect_one_line(
        cli("export", "source"),
        4,
        "modules.json asks for text-generation, wanted one of feature-extraction, sequence-classification",
    )
    write(source / "sentence_bert_config.json", {"transformer_task": "fill-mask"})
    expect_one_line(cli("export", "source"), 4, "no weights for cls.predictions", "--task text-classification")
    write(source / "sentence_bert_config.json", {})
    assert open_checkpoint(source).task == "feature-extraction"


def test_pooling_that_nothing_names_is_assumed(copy):
    assert (
        str(open_checkpoint(copy("encoder"), task="sentence-similarity")) == "PyTorch, pooled by mean as no modules.json says how"
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "modules.json is not JSON"),
        ("", "modules.json is empty"),
        ({}, "modules.json is no list of modules"),
        ([], "modules.json is no list of modules"),
        (["Transformer"], "modules.json is no list of modules"),
        ([{"type": "sentence_transformers.models.Transformer"}], "modules.json is no list of modules with a type and a path"),
        (
            [{"path": "../other", "type": "sentence_transformers.models.Transformer"}],
            "names the folder '../other', which is not inside",
        ),
        ([{"path": "/etc", "type": "sentence_transformers.models.Transformer"}], "names the folder '/etc', which is not inside"),
        (modules(("", "Transformer"), ("../../x", "Dense")), "names the folder '../../x', which is not inside"),
        (modules(("", "Transformer"), ("1_Pooling", "Pooling")), "names a Pooling, whose 1_Pooling/config.json is not there"),
        (
            modules(("0", "Transformer"), ("1_Pooling", "Pooling")),
            "cannot load the checkpoint in source/0: it has no config.json",
        ),
    ],
)
def test_modules_that_cannot_be_read(cli, copy, content, words):
    copy("encoder", **{"modules.json": content})
    assert words in one_line(cli("export", "source"))


# What export writes ----------------------------------------------------------------------------------------------


def test_all_files_take_their_places_or_none(copy, tmp_path):
    source = copy(
        "encoder",
        **{
            "modules.json": modules(("", "Transformer"), ("1_Pooling", "Pooling")),
            "1_Pooling/config.json": MEAN,
            "tokenizer_config.json": {"a": 1},
        },
    )
    out = tmp_path / "out"
    plan = ExportConfig(str(source), out, exporter="torchscript")
    export(plan)
    before = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert Path("1_Pooling/config.json") in before
    assert "_name_or_path" not in json.loads(before[Path("config.json")])
    write(source / "tokenizer_config.json", {"a": 2})
    (out / "tokenizer_config.json").unlink()
    (out / "tokenizer_config.json").mkdir()  # in the way of one of them
    with pytest.raises(StorageError, match="what was there is untouched"):
        export(plan)
    (out / "tokenizer_config.json").rmdir()
    after = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert after == {path: content for path, content in before.items() if path.name != "tokenizer_config.json"}
    export(plan)
    assert json.loads((out / "tokenizer_config.json").read_text()) == {"a": 2}
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_export_into_its_own_folder_is_refused(copy):
    source = copy(**{"tokenizer_config.json": {"a": 1}})
    before = {path: path.read_bytes() for path in source.iterdir()}
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is the input itself; choose another folder"):
            export(ExportConfig(str(source), source, exporter="torchscript", overwrite=overwrite))
    assert {path: path.read_bytes() for path in source.iterdir()} == before


@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_fewer_positions_than_the_sample_has_tokens(tmp_path, exporter):
    model = transformers.BertModel(
        transformers.BertConfig(**BERT | {"max_position_embeddings": 5}, type_vocab_size=1, num_hidden_layers=1)
    )
    model.save_pretrained(tmp_path / "source")
    step = export(ExportConfig(str(tmp_path / "source"), tmp_path / "out", exporter=exporter))
    assert step.parity.passed


def test_a_model_that_reads_no_mask(cli, tmp_path):
    transformers.BertModel(transformers.BertConfig(**BERT, num_hidden_layers=0)).save_pretrained(tmp_path / "source")
    expect_one_line(cli("export", "source", "--exporter", "torchscript"), 4, "does not read attention_mask, as models of bert do")
    assert not (tmp_path / "onnx" / "source" / "model.onnx").exists()


# Model objects ---------------------------------------------------------------------------------------------------


def test_objects_that_are_no_encoders():
    with pytest.raises(ExportError, match=r"Linear is no transformers model; give one of its classes"):
        open_checkpoint(torch.nn.Linear(2, 2))
    model = small_model("bert", "AutoModel", layers=1)
    for kind in (torch.float16, torch.bfloat16):
        with pytest.raises(
            ExportError, match=r"BertModel has b?float16 weights; exports are made in float32: call \.float\(\) first"
        ):
            open_checkpoint(model.to(kind))
    model.float()
    with pytest.raises(ExportError, match=r"DataParallel is no transformers model; .*model\.module"):
        open_checkpoint(torch.nn.DataParallel(model))
    with pytest.raises(
        ExportError,
        match="BertModel has no output logits, which task fill-mask shows; it returns last_hidden_state, pooler_output",
    ):
        open_checkpoint(model, task="fill-mask")
    classifier = small_model("bert", "AutoModelForSequenceClassification", layers=1)
    with pytest.raises(
        ExportError,
        match="BertForSequenceClassification is made for text-classification, the task asked for is fill-mask; leave it out",
    ):
        open_checkpoint(classifier, task="fill-mask")
    with pytest.raises(ExportError, match=r"BertLMHeadModel is a class that onnxfuse does not export; name the --task"):
        open_checkpoint(small_model("bert", "AutoModelForCausalLM", layers=1))
    with pytest.raises(ExportError, match=r"BertModel has weights on meta; move it"):
        open_checkpoint(model.to("meta"))
    with pytest.raises(ModelError, match="'ernie' is not supported"):
        open_checkpoint(transformers.ErnieModel(transformers.ErnieConfig(num_hidden_layers=1, hidden_size=12, vocab_size=9)))


def test_a_class_made_from_one_that_is_known(tmp_path):
    model = small_model("bert", "AutoModelForSequenceClassification", layers=1)
    model.config.return_dict = False
    model.__class__ = type("Mine", (type(model),), {})
    step = export(ExportConfig("mine", tmp_path, exporter="torchscript"), source=model)
    checkpoint = step.checkpoint
    assert (checkpoint.task, step.parity.passed) == ("text-classification", True)

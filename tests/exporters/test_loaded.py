"""What was loaded is the checkpoint, or export ends with a line that names the weights and the tasks that fit."""

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from onnxfuse.errors import ExportError
from onnxfuse.exporters import checkpoint_runner, open_checkpoint
from onnxfuse.exporters.pairing import aliases, fit
from onnxfuse.exporters.pytorch import _disturb
from tests.conftest import SMALL

HEAD = "BertForSequenceClassification"


def small(family, head, layers=2):
    """A narrow model of a class of transformers with random weights, biases and norms included."""
    kind, fields = SMALL[family]
    torch.manual_seed(0)
    depth = "n_layers" if family == "distilbert" else "num_hidden_layers"
    model = getattr(transformers, head)(getattr(transformers, kind)(**fields, **{depth: layers})).eval()
    _disturb(model)
    return model


def saved(folder, head=HEAD, family="bert", layers=2, config=None, weights=None, model=None):
    """A checkpoint of random weights, its config.json changed by ``config`` (None takes a field away), its weights by a function."""
    model = model or small(family, head, layers)
    model.save_pretrained(folder)
    if config:
        changed = json.loads((folder / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps({name: value for name, value in changed.items() if value is not None}))
    if weights:
        save_file(weights(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    return folder


def named(change):
    return lambda weights: {change(name): value for name, value in weights.items()}


def without(*parts):
    return lambda weights: {name: value for name, value in weights.items() if not any(part in name for part in parts)}


def adding(**more):
    return lambda weights: weights | {name.replace("__", "."): torch.full(shape, 0.5) for name, shape in more.items()}


def refused(folder, *parts, **options):
    with pytest.raises(ExportError) as raised:
        open_checkpoint(folder, **options)
    for part in parts:
        assert part in str(raised.value)
    return str(raised.value)


def hidden(checkpoint):
    """The exported module's first output on a fixed sample."""
    feeds = [
        torch.arange(10).reshape(2, 5) % 2 if name != "input_ids" else torch.arange(10).reshape(2, 5)
        for name in checkpoint.family.inputs
    ]
    with torch.no_grad():
        return checkpoint.module(*feeds)[0].numpy()


@pytest.mark.parametrize(
    ("head", "task", "names"),
    [
        ("BertModel", "text-classification", "no weights for classifier.weight and classifier.bias of task text-classification"),
        (
            "BertForMaskedLM",
            "question-answering",
            "no weights for qa_outputs.weight and qa_outputs.bias of task question-answering",
        ),
    ],
)
def test_a_head_that_was_never_trained(tmp_path, head, task, names):
    message = refused(saved(tmp_path, head), names, task=task)
    assert message.endswith("its weights fit --task feature-extraction" + (" and --task fill-mask" if "Masked" in head else ""))


@pytest.mark.parametrize(
    ("weights", "parts"),
    [
        (
            named(lambda name: name.replace("classifier", "fc")),
            [
                "no weights for classifier.weight and classifier.bias",
                "does not read fc.bias and fc.weight",
                "fit --task feature-extraction",
            ],
        ),
        (
            named(lambda name: f"module.{name}"),
            [
                "none of its 41 weights (module.bert.embeddings.LayerNorm.bias and 40 more) is one of BertForSequenceClassification's",
                "all its names begin with module.; save the model inside with save_pretrained, which leaves that out",
            ],
        ),
        (named(lambda name: name.replace("bert.", "roberta.")), ["no weights for bert.embeddings", "does not read", "roberta."]),
        (
            without("layer.1."),
            ["no weights for bert.encoder.layer.1.attention.self.query.weight", "and 14 more", "of one bert model"],
        ),
        (
            adding(bert__encoder__layer__0__attention__self__distance_embedding__weight=(127, 32)),
            ["does not read bert.encoder.layer.0.attention.self.distance_embedding.weight"],
        ),
        (adding(bert__encoder__layer__0__extra=(128,)), ["does not read bert.encoder.layer.0.extra", "of one bert model"]),
    ],
)
def test_weights_of_another_model(tmp_path, weights, parts):
    refused(saved(tmp_path, weights=weights), *parts)


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"num_hidden_layers": 1}, ["does not read bert.encoder.layer.1.attention"]),
        ({"num_hidden_layers": 3}, ["no weights for bert.encoder.layer.2.attention.self.query.weight"]),
        (
            {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}},
            [
                "classifier.weight is [2, 128], config.json wants [3, 128], and so for 1 more; its weights fit --task feature-extraction"
            ],
        ),
        ({"vocab_size": 400}, ["bert.embeddings.word_embeddings.weight is [500, 128], config.json wants [400, 128]"]),
        (
            {"position_embedding_type": "relative_key", "num_hidden_layers": 1},
            ["config.json asks for position_embedding_type 'relative_key', which BertConfig of transformers", "does not know"],
        ),
    ],
)
def test_a_config_of_another_model(tmp_path, config, parts):
    refused(saved(tmp_path, config=config), *parts)


def test_a_table_that_is_tied_by_config_and_stored_with_other_numbers(tmp_path):
    model = small("bert", "BertForMaskedLM", 1)
    config = model.config
    config.tie_word_embeddings = False
    untied = type(model)(config).eval()
    saved(tmp_path, model=untied, config={"tie_word_embeddings": True})
    read = load_file(tmp_path / "model.safetensors")
    assert "cls.predictions.decoder.weight" in read
    try:
        checkpoint = open_checkpoint(tmp_path)  # where transformers unties what was stored apart
    except ExportError as error:
        assert "takes other numbers for cls.predictions.decoder.weight" in str(error)
    else:
        assert torch.equal(checkpoint.module.model.cls.predictions.decoder.weight, read["cls.predictions.decoder.weight"])


@pytest.mark.parametrize(
    ("head", "task", "weights"),
    [
        ("BertModel", None, without("pooler")),  # no output of ours shows it
        ("BertForMaskedLM", "feature-extraction", None),  # a head, and features were asked for
        (
            "BertForMaskedLM",
            None,
            adding(
                bert__pooler__dense__weight=(128, 128),
                bert__pooler__dense__bias=(128,),
                cls__seq_relationship__weight=(2, 128),
                cls__seq_relationship__bias=(2,),
            ),
        ),  # bert-base's file
        ("BertForTokenClassification", None, adding(bert__pooler__dense__weight=(128, 128), bert__pooler__dense__bias=(128,))),
        ("BertForPreTraining", "fill-mask", None),
        ("BertForPreTraining", "feature-extraction", None),
        (
            "BertModel",
            None,
            named(lambda name: name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")),
        ),
    ],
)
def test_what_cannot_reach_the_outputs_may_be_missing_or_left_over(tmp_path, head, task, weights):
    model = small("bert", head, 2)
    checkpoint = open_checkpoint(saved(tmp_path, model=model, weights=weights), task=task)
    with torch.no_grad():
        ids = torch.arange(10).reshape(2, 5)
        wanted = model(input_ids=ids, attention_mask=ids % 2, token_type_ids=ids % 2)
    wanted = (
        model.base_model(input_ids=ids, attention_mask=ids % 2, token_type_ids=ids % 2)["last_hidden_state"]
        if checkpoint.task == "feature-extraction"
        else wanted.get("logits", wanted.get("prediction_logits"))
    )
    np.testing.assert_allclose(hidden(checkpoint), wanted.detach().numpy(), atol=1e-5)


def test_a_pooler_of_another_shape_does_not_matter_to_features(tmp_path):
    def change(weights):
        return weights | {"pooler.dense.weight": torch.zeros(3, 128)}

    folder = saved(tmp_path, "BertModel", weights=change)
    assert open_checkpoint(folder).task == "feature-extraction"


def test_positions_that_were_stored_as_a_buffer(tmp_path):
    folder = saved(
        tmp_path / "counted", weights=lambda weights: weights | {"bert.embeddings.position_ids": torch.arange(64)[None]}
    )
    assert open_checkpoint(folder).task == "text-classification"
    folder = saved(
        tmp_path / "moved", weights=lambda weights: weights | {"bert.embeddings.position_ids": torch.arange(64)[None] + 2}
    )
    refused(folder, "takes other numbers for bert.embeddings.position_ids")


def test_a_head_over_an_encoder_is_left_out_only_when_features_are_asked_for(tmp_path):
    folder = saved(tmp_path, "BertForMaskedLM", config={"architectures": ["BertModel"]})
    refused(folder, "BertModel does not read cls.predictions", "fit --task fill-mask")
    assert open_checkpoint(folder, task="feature-extraction").task == "feature-extraction"
    config = json.loads((folder / "config.json").read_text())
    del config["architectures"]
    (folder / "config.json").write_text(json.dumps(config))
    refused(folder, "BertModel does not read cls.predictions", "fit --task fill-mask")


def test_a_head_of_another_task_with_the_same_names(tmp_path):
    """Both have a classifier of one shape; a sentence's reads the pooler, which a token's leaves over."""
    message = refused(saved(tmp_path), "BertForTokenClassification does not read bert.pooler.dense", task="token-classification")
    assert message.endswith("its weights fit --task feature-extraction and --task text-classification")


@pytest.mark.parametrize(
    ("head", "called", "fitting"),
    [
        ("BertLMHeadModel", None, "--task feature-extraction and --task fill-mask"),
        ("BertForNextSentencePrediction", "BertForSurprise", "--task feature-extraction and --task next-sentence-prediction"),
        ("BertForMultipleChoice", "BertForSurprise", "--task feature-extraction and --task multiple-choice"),
        ("BertForPreTraining", "BertForSurprise", "--task feature-extraction and --task pre-training"),
        ("BertForSequenceClassification", "MyClassifier", "--task feature-extraction and --task text-classification"),
        ("BertForMaskedLM", "JinaBertForMaskedLM", "--task feature-extraction and --task fill-mask"),
    ],
)
def test_a_class_that_is_not_exported(tmp_path, head, called, fitting):
    folder = saved(tmp_path, head, config=called and {"architectures": [called]})
    message = refused(folder, f"was saved as {called or head}, which onnxfuse does not export; its weights fit {fitting}")
    assert "\n" not in message


def test_vit_and_distilbert(tmp_path):
    refused(saved(tmp_path / "vit", "ViTModel", "vit"), "no weights for classifier.weight", task="image-classification")
    assert open_checkpoint(tmp_path / "vit").task == "feature-extraction"
    saved(tmp_path / "images", "ViTForImageClassification", "vit")
    assert open_checkpoint(tmp_path / "images", task="feature-extraction").task == "feature-extraction"
    saved(tmp_path / "distil", "DistilBertForSequenceClassification", "distilbert")
    refused(tmp_path / "distil", "does not read pre_classifier", task="token-classification")
    assert open_checkpoint(tmp_path / "distil").task == "text-classification"


def test_a_masked_image_model_has_features(tmp_path):
    """Its mask token stands inside the encoder, and is read where patches are masked alone."""
    folder = saved(tmp_path, "ViTForMaskedImageModeling", "vit")
    assert open_checkpoint(folder, task="feature-extraction").task == "feature-extraction"


def test_a_layer_more_that_is_a_copy_of_another(tmp_path):
    """As progressive stacking starts."""

    def stacked(weights):
        return weights | {
            name.replace("layer.1.", "layer.2."): value.clone() for name, value in weights.items() if "layer.1." in name
        }

    refused(saved(tmp_path, weights=stacked), "does not read bert.encoder.layer.2.attention")


def test_an_object_through_which_others_are_called(tmp_path):
    """What its forward returns counts, whatever it is made of (adapters, wrappers)."""

    class Wrapped(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.config, self.base_model = inner, inner.config, torch.nn.Identity()

        def forward(self, **given):
            return self.inner(**given)

    inner = small("bert", HEAD, 1)
    with pytest.raises(ExportError, match="Wrapped is a class that onnxfuse does not export; name the --task"):
        open_checkpoint(Wrapped(inner))
    assert open_checkpoint(Wrapped(inner), task="text-classification").task == "text-classification"
    with pytest.raises(
        ExportError, match="Wrapped has no output start_logits, which task question-answering shows; it returns logits"
    ):
        open_checkpoint(Wrapped(inner), task="question-answering")


class Numbers:
    """A model that is nothing but its numbers."""

    kind, prefix, model, vocabulary = "Numbers", "base.", None, 3

    def __init__(self, required=None, **own):
        self._own = {name.replace("__", "."): np.asarray(value, np.float32) for name, value in own.items()}
        self.required = frozenset(self._own if required is None else required)

    def own(self):
        return self._own

    def outputs(self):
        return {}


def test_pairs_of_weights():
    tied = np.array([1.0, 2.0], np.float32)
    model = Numbers(base__a=[3, 4], b=[5, 6], c=[0, 0], d=[0, 0])
    model._own |= {"t": tied, "u": tied}
    model.required |= {"t", "u"}
    stored = {"a": [3, 4], "renamed": [5, 6], "c": [0, 0], "t": [1, 2], "twice": [1, 2], "other": [0, 0, 0]}
    found = fit(model, {name: np.asarray(value, np.float32) for name, value in stored.items()})
    assert found.read == {"a": "base.a", "renamed": "b", "c": "c", "t": "t", "twice": "u"}
    assert (found.left, found.missing) == (("other",), ("d",))  # d is zero as c is, and nothing is stored for it
    copies = Numbers(layer0=[1, 2], words=[7, 8, 9])
    twice = fit(
        copies,
        {
            name: np.asarray(value, np.float32)
            for name, value in {"layer0": [1, 2], "layer1": [1, 2], "words": [7, 8, 9], "decoder": [7, 8, 9]}.items()
        },
    )
    assert (twice.read["decoder"], twice.left) == ("words", ("layer1",))  # a layer that is a copy is one layer more
    wrong = fit(model, {"a": np.array([3, 5], np.float32), "b": np.array([5, 6])})
    assert wrong.left == ("a", "b")  # other numbers; integers where floats are wanted


def test_aliases_of_a_name():
    assert aliases("LayerNorm.gamma", "bert.") == (
        "LayerNorm.gamma",
        "bert.LayerNorm.gamma",
        "LayerNorm.gamma",
        "LayerNorm.weight",
        "bert.LayerNorm.weight",
        "LayerNorm.weight",
    )
    assert "x.weight" in aliases("bert.x.weight", "bert.")


def test_a_weight_that_is_not_a_number_is_named(tmp_path):
    def spoil(weights):
        weights["classifier.bias"][0] = float("nan")
        return weights

    refused(saved(tmp_path / "read", weights=spoil), "weight classifier.bias holds NaN")
    open_checkpoint(saved(tmp_path / "unread", weights=spoil), task="feature-extraction")


def test_positions_that_this_version_does_not_know_are_not_left_out(tmp_path):
    folder = saved(tmp_path, config={"position_embedding_type": "relative_key"})
    refused(folder, "position_embedding_type 'relative_key', which BertConfig of transformers", "does not know")
    open_checkpoint(saved(tmp_path / "usual", config={"position_embedding_type": "absolute"}))


def test_an_activation_that_nobody_knows_is_named_with_its_field(tmp_path):
    refused(saved(tmp_path, config={"hidden_act": "swishy"}), "does not know hidden_act 'swishy'")


def test_a_checkpoint_of_another_family_is_named(tmp_path):
    said = refused(
        saved(tmp_path, config={"model_type": "distilbert"}),
        "was saved as BertForSequenceClassification, a class of bert, and its config.json has model type 'distilbert'",
    )
    assert "does not export" not in said


def test_what_the_framework_cannot_run_is_one_line():
    """Some fail on inputs that others take: MPNet with other buckets of distances than its function has."""
    checkpoint = open_checkpoint(small("distilbert", "DistilBertModel", layers=1))
    feeds = {name: np.full((1, 3), 10**6) for name in checkpoint.inputs}
    with pytest.raises(ExportError, match=r"PyTorch cannot run DistilBertModel on input_ids \[1, 3\], .*: index out of range"):
        checkpoint_runner(checkpoint)(feeds)


def test_weights_that_are_split_when_they_are_loaded_are_found_in_the_whole(tmp_path):
    """DINOv2 giant's feed-forward is stored with both halves in one, and transformers 5 loads it as two."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "image_size": 28, "patch_size": 14}
    model = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, use_swiglu_ffn=True)).eval()
    _disturb(model)
    model.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert any(".weights_in." in name for name in weights)
    assert open_checkpoint(tmp_path).task == "feature-extraction"
    name = next(name for name in weights if name.endswith("weights_in.weight"))
    save_file(weights | {name: weights[name] + 1}, tmp_path / "model.safetensors", metadata={"format": "pt"})
    again = open_checkpoint(tmp_path).module.model.state_dict()
    assert torch.equal(again[name.replace("weights_in", "gate_proj")], (weights[name] + 1).chunk(2)[0])
    lacking = {other: array for other, array in weights.items() if other != name}
    save_file(lacking, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ExportError, match=r"no weights for encoder\.layer\.0\.mlp\.gate_proj\.weight"):
        open_checkpoint(tmp_path)

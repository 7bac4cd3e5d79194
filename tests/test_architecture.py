"""What a family says of its models: the names of dimensions, and how often each fused thing occurs."""

from dataclasses import replace

import pytest

from onnxfuse import catalog
from onnxfuse.errors import ModelError
from tests.conftest import parse


def dims(values) -> dict[str, list[str]]:
    return {value.name: [str(dim) for dim in value.shape.dims] for value in values}


def test_a_dimension_is_renamed_in_all_inputs_and_outputs():
    """An input of another name keeps what it shares with those that the family knows."""
    model = parse(
        "g (int64[N,L] input_ids, int64[N,L] keep, float[L,8] x) => (float[N,L,8] y) { c = Cast<to = 1>(keep)  "
        "f = Cast<to = 1>(input_ids)  a = Add(c, f)  u = Unsqueeze(a, last)  y = Add(u, x) }".replace(
            ") {", ") <int64[1] last = {-1}> {", 1
        )
    )
    catalog.architecture("bert").name_inputs(model)
    assert dims(model.graph.inputs) == {
        "input_ids": ["batch_size", "sequence_length"],
        "keep": ["batch_size", "sequence_length"],
        "x": ["sequence_length", "8"],
    }
    assert dims(model.graph.outputs) == {"y": ["batch_size", "sequence_length", "8"]}


def test_names_of_each_input_become_one():
    model = parse("g (int64[N,L] input_ids, int64[M,K] attention_mask) => (int64[N,L] y) { y = Add(input_ids, attention_mask) }")
    catalog.architecture("bert").name_inputs(model)
    assert dims(model.graph.inputs)["attention_mask"] == ["batch_size", "sequence_length"]


def test_another_dimension_of_the_new_name_is_told_apart():
    model = parse("g (int64[N,L] input_ids, float[batch_size] x) => (float[batch_size] y) { y = Relu(x) }")
    catalog.architecture("bert").name_inputs(model)
    assert dims(model.graph.inputs)["x"] == dims(model.graph.outputs)["y"] == ["batch_size_other"]


@pytest.mark.parametrize(
    ("ids", "mask", "named"),
    [
        ("N,C,L", "N,C,L", ["batch_size", "num_choices", "sequence_length"]),
        ("N,L", "N,L,L", ["batch_size", "sequence_length", "L"]),  # a mask of queries and keys has no choices
    ],
)
def test_choices_are_named_by_the_rank_of_the_ids(ids, mask, named):
    model = parse(f"g (int64[{ids}] input_ids, int64[{mask}] attention_mask) => (int64[{ids}] y) {{ y = Neg(input_ids) }}")
    catalog.architecture("bert").name_inputs(model)
    assert dims(model.graph.inputs)["attention_mask"] == named
    assert dims(model.graph.outputs)["y"] == dims(model.graph.inputs)["input_ids"]


def test_inputs_and_outputs_follow_the_task():
    family = catalog.architecture("distilbert")
    assert list(family.inputs_of({}, "multiple-choice")["attention_mask"].values()) == [
        "batch_size",
        "num_choices",
        "sequence_length",
    ]
    assert family.inputs_of({}, "fill-mask") == family.inputs
    other = replace(family, outputs={"fill-mask": ("scores",)})
    assert (other.outputs_of("fill-mask"), other.outputs_of("multiple-choice")) == (("scores",), ("logits",))


@pytest.mark.parametrize(
    ("family", "field", "layers"),
    [
        ("bert", "hidden_act", "num_hidden_layers"),
        ("vit", "hidden_act", "num_hidden_layers"),
        ("distilbert", "activation", "n_layers"),
    ],
)
@pytest.mark.parametrize(
    ("activation", "gelu"), [("gelu", 3), ("gelu_new", 3), (None, 3), ("relu", None), ("silu", None), ("quick_gelu", None)]
)
def test_counts_follow_the_activation(family, field, layers, activation, gelu):
    config = {layers: 3} | ({} if activation is None else {field: activation})
    expected = catalog.architecture(family).expected(config, None)
    assert expected.get("gelu") == gelu
    assert expected["attention"] == 3


def test_a_gate_takes_the_place_of_gelu():
    config = {"num_hidden_layers": 4, "hidden_act": "gelu"}
    assert catalog.architecture("dinov2").expected(config | {"use_swiglu_ffn": False}, None)["gelu"] == 4
    assert "gelu" not in catalog.architecture("dinov2").expected(config | {"use_swiglu_ffn": True}, None)


def test_layers_of_several_layers_count_as_these():
    config = {"num_hidden_layers": 4, "inner_group_num": 2}
    assert catalog.architecture("albert").expected(config, None)["attention"] == 8
    with pytest.raises(ModelError, match="as inner_group_num, wanted a number of layers"):
        catalog.architecture("albert").expected(config | {"inner_group_num": "2"}, None)


@pytest.mark.parametrize("layers", [{"a": 1}, None, "4", -1, 2.0, float("inf"), True, 2**70, []])
def test_a_number_of_layers_that_is_none_is_refused(layers):
    family = catalog.architecture("bert")
    with pytest.raises(ModelError, match="as num_hidden_layers, wanted a number of layers"):
        family.expected({family.layers: layers}, None)
    assert family.expected({family.layers: 2}, ["no task"]) == family.expected({family.layers: 2}, None)


@pytest.mark.parametrize(
    ("family", "config", "longest"),
    [
        ("bert", {"max_position_embeddings": 512, "pad_token_id": 1}, 512),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ("xlm-roberta", {"max_position_embeddings": 8194, "pad_token_id": 1}, 8192),
        ("roberta", {"max_position_embeddings": 514}, 514),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": "1"}, 514),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": 513}, 514),
        ("roberta", {"max_position_embeddings": 514, "pad_token_id": -1}, 514),
        ("roberta", {"max_position_embeddings": 1 << 31, "pad_token_id": 1}, 0),
        ("roberta", {"max_position_embeddings": 0}, 0),
        ("roberta", {}, 0),
        ("vit", {}, 0),
    ],
)
def test_the_usable_length(family, config, longest):
    assert catalog.architecture(family).longest(config) == longest


@pytest.mark.parametrize(
    ("family", "config", "there"),
    [
        ("bert", {}, True),
        ("bert", {"type_vocab_size": 1}, True),
        ("roberta", {"type_vocab_size": 1}, False),
        ("roberta", {"type_vocab_size": 2}, True),
        ("roberta", {"type_vocab_size": "2"}, False),
        ("roberta", {}, False),
    ],
)
def test_token_types_are_read_where_there_are_several(family, config, there):
    known = catalog.architecture(family)
    assert list(known.inputs_of(config, "fill-mask")) == [name for name in known.inputs if there or name != "token_type_ids"]

"""config.pbtxt says what a model takes and gives, with and without a batch of its own."""

import pytest

from onnxfuse.layouts.triton import config
from onnxfuse.runtime.cores import cores
from tests.conftest import parse

IDENTITY = "g ({inputs}) => ({outputs}) {{ y = Identity (x)  z = Identity (m) }}"


def written(inputs, outputs):
    graph = parse(IDENTITY.format(inputs=inputs, outputs=outputs)).graph
    return config("name", graph.inputs, graph.outputs)


def test_a_model_of_any_number_of_rows():
    assert written("float[B,S] x, int64[B,3] m", "float[B,S] y, int64[rows,3] z") == (
        'name: "name"\n'
        'backend: "onnxruntime"\n'
        "max_batch_size: 64\n"
        "input [\n"
        '  { name: "x" data_type: TYPE_FP32 dims: [ -1 ] },\n'
        '  { name: "m" data_type: TYPE_INT64 dims: [ 3 ] }\n'
        "]\n"
        "output [\n"
        '  { name: "y" data_type: TYPE_FP32 dims: [ -1 ] },\n'
        '  { name: "z" data_type: TYPE_INT64 dims: [ 3 ] }\n'
        "]\n"
        "dynamic_batching { }\n"
        "# A session for each core, of one thread: set count to the cores of your server.\n"
        f"instance_group [ {{ count: {cores()} kind: KIND_CPU }} ]\n"
        'parameters { key: "intra_op_thread_count" value: { string_value: "1" } }\n'
    )


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ("float[2,S] x, int64[2,3] m", "float[2,S] y, int64[2,3] z"),  # fixed
        ("float[B,S] x, int64[S,3] m", "float[B,S] y, int64[S,3] z"),  # rows of other things
        ("float[B,S] x, int64[B,3] m", "float[B,S] y, int64[1,3] z"),  # one answer for all
        ("float[B,S] x, int64 m", "float[B,S] y, int64 z"),  # a number for all
    ],
)
def test_where_rows_do_not_stand_first_everywhere_there_is_no_batch(inputs, outputs):
    text = written(inputs, outputs)
    assert "max_batch_size: 0\n" in text and "dynamic_batching" not in text
    assert f"dims: [ {'2' if '[2' in inputs else '-1'}, -1 ]" in text


def test_a_row_that_is_one_number_has_a_shape_for_triton_and_one_for_the_model():
    text = written("float[B] x, int64[B] m", "float[B] y, int64[B] z")
    assert text.count("dims: [ 1 ] reshape { shape: [ ] }") == 4

"""What an int8 model says of itself."""

import json

import numpy as np

from onnxfuse.config import Scheme
from onnxfuse.evaluation.collate import Sizes
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.quantization.description import Description
from onnxfuse.quantization.formats import FormatChoice
from onnxfuse.quantization.prepare import prepare
from tests.quantization.test_write import batches, linear, rows

DATA = Dataset("/home/someone/data.npz", rows(16), notes=("cut",))
DYNAMIC = FormatChoice("dynamic")


def described(data=DATA, kept=(), choice=DYNAMIC, **scheme):
    prepared = prepare(linear(), Scheme(smooth="off", reduce_range=True, **scheme), batches)
    return Description.of(prepared, choice, [prepared.linears[0].name] if kept else (), data, 4)


def test_json_tells_the_scheme_the_counts_and_the_data():
    assert described().to_json() == {
        "scheme": "dynamic",
        "format": "dynamic",
        "formats": {},
        "weights": "s8 per channel",
        "activations": "u8",
        "reduce_range": True,
        "matmuls": 1,
        "embeddings": 0,
        "calibration": "/home/someone/data.npz",
        "batch": 4,
        "notes": ["cut"],
        "smoothed": {},
        "float": [],
    }


def test_what_stays_float_does_not_count_and_has_its_role():
    found = described(kept=True)
    assert (found.matmuls, found.kept) == (0, ("before the layers",))


def test_a_static_model_tells_what_its_format_was_chosen_by():
    found = described(choice=FormatChoice("qdq", {"qdq": 1.0, "qoperator": 2.0}), static=True).to_json()
    assert (found["scheme"], found["format"], found["formats"]) == ("static", "qdq", {"qdq": 1.0, "qoperator": 2.0})


def test_the_metadata_do_not_tell_whose_machine_it_was():
    found = json.loads(described().metadata())
    assert (found["calibration"], found["rows"]) == ("data.npz", 4)
    assert json.loads(described(None).metadata())["calibration"] is None


def test_rows_are_those_asked_for_and_a_batch_those_that_the_model_takes():
    fixed = Dataset("mine", {"x": np.ones((8, 2), np.float32)}, sizes=Sizes(batch=2))
    found = described(fixed)
    assert (found.rows, found.batch) == (4, 2)

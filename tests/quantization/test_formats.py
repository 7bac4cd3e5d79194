"""Which static format is written: the one with standard operators, unless the other is faster beyond doubt."""

import numpy as np
import pytest

from onnxfuse.config import Scheme
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.measure import benchmark
from onnxfuse.quantization.formats import FormatChoice, choose_format
from onnxfuse.quantization.prepare import prepare
from tests.quantization.test_write import batches, linear, rows

DATA = Dataset("numbers", rows(16))


def chosen(data=DATA, **scheme):
    return choose_format(prepare(linear(), Scheme(smooth="off", **scheme), batches), 4, data)


def test_what_is_not_measured():
    assert chosen() == FormatChoice("dynamic")
    assert chosen(static=True, format="qdq") == FormatChoice("qdq")
    assert chosen(static=True, format="qoperator") == FormatChoice("qoperator")
    assert chosen(None, static=True) == FormatChoice("dynamic")


@pytest.mark.parametrize(
    ("qdq", "operator", "format"),
    [
        ([2.0] * 12, [1.0] * 12, "qoperator"),
        ([1.0] * 12, [2.0] * 12, "qdq"),
        ([1.0] * 12, [1.0] * 12, "qdq"),
        ([1.0, 1.5] * 6, [1.2] * 12, "qdq"),
    ],
)
def test_the_operator_is_written_where_its_whole_interval_is_faster(monkeypatch, qdq, operator, format):
    """Both formats are really run; only what the clock said is given."""

    def measure(runners, inputs, rounds):
        outputs = [run(inputs[0])["y"] for run in runners.values()]
        assert len(inputs[0]["x"]) == 4
        np.testing.assert_allclose(*outputs, atol=0.05 * np.abs(outputs[0]).max())
        return {name: benchmark.summarize(np.array({"qdq": qdq, "qoperator": operator}[name]) / 1e3) for name in runners}

    monkeypatch.setattr(benchmark, "measure", measure)
    found = chosen(static=True)
    assert found.format == format
    assert found.milliseconds == {"qdq": np.median(qdq), "qoperator": np.median(operator)}

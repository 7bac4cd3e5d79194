"""Progress: a line for each phase in a log, a bar with the step on a terminal."""

import io
import json
from dataclasses import replace

import numpy as np
from rich.console import Console

from onnxfuse.cli import console, tables
from onnxfuse.config import BenchmarkConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.io.progress import Lines, counted, silent, untold
from onnxfuse.pipeline.check import check
from onnxfuse.pipeline.compare import compare_models
from onnxfuse.pipeline.evaluate import evaluate
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.verify import parity
from onnxfuse.verify.difference import Difference
from tests.conftest import save_tokenizer


def test_a_log_gets_a_line_for_each_phase():
    lines = []
    tell = Lines(lines.append)
    for step in range(64):
        tell("calibrating", step=f"batch {step}")
    tell("measuring", 0.5)
    tell("measuring", 0.9, "round 2")
    tell("calibrating")
    assert lines == ["  calibrating", "  measuring", "  calibrating"]
    assert silent("anything", 0.1, "anywhere") is None


def test_a_terminal_gets_a_bar_with_the_step(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=screen, force_terminal=True, width=100))
    with console.progress() as tell:
        tell("calibrating", 0.5, "batch 3")
    assert "calibrating, batch 3" in screen.getvalue()


def test_what_check_says():
    numbers = Difference("y", 1e-6, 2e-6, 0.99999, 0.75, 0.5, "batch 1", 20, True, discrete=False, free=0)
    items = Difference("label", 0.25, 0.25, 0.75, 0.75, 0.75, "batch 2", 8, True, discrete=True, free=0)
    steady = Difference("scale", 0.0, 0.0, 1.0, 1.0, 1.0, "", 1, False, discrete=False, free=0)
    assert tables.parity_lines(parity.Parity((numbers, items, steady), 12, "int8")) == [
        "y: max diff 1.00e-06 (worst on batch 1), cosine 0.99999, largest class kept 75.0%, 20 numbers",
        "label: 75.00% equal (worst on batch 2), 8 values",
        "scale: max diff 0.00e+00, cosine 1.00000, largest class kept 100.0%, 1 number, which does not vary",
        "equal within 'int8' on 12 inputs",
    ]
    free = replace(numbers, free=7)
    assert tables.parity_lines(parity.Parity((free,), 12, "int8"))[0].endswith(
        "; 7 more, of rows or queries without a token, are finite"
    )
    assert (
        tables.parity_lines(parity.Parity((numbers,), 8, "int8", ("too far",), "data.npz"))[-1]
        == "different within 'int8' on 8 batches of data.npz, and finite on random inputs"
    )


def test_where_an_int8_model_was_judged_stands_in_tables():
    near = Difference("y", 1e-6, 2e-6, 0.98765, 1.0, 1.0, "", 20, True, discrete=False, free=0)
    assert tables.parity_text(parity.Parity((near,), 8, "int8", real="data.npz")) == "cosine 0.9877, real inputs"
    assert tables.parity_text(parity.Parity((near,), 8, "finite")) == "cosine 0.9877"
    assert tables.parity_text(parity.Parity((near,), 8, "reassociate")) == "max diff 1.0e-06"
    assert tables.parity_text(None) == "not checked"


def test_what_is_counted_tells_its_share():
    told = []
    assert list(counted("abcd", lambda done, step: told.append((done, step)), begin=0.5)) == list("abcd")
    assert told == [(0.5, "1 of 4"), (0.625, "2 of 4"), (0.75, "3 of 4"), (0.875, "4 of 4")]
    assert list(counted([], untold)) == []


class Shares:
    """A Progress that keeps what it is told."""

    def __init__(self):
        self.told = {}

    def __call__(self, text, done=None, step=""):
        self.told.setdefault(text, []).append(done)

    def rises(self, text, low):
        """Whether a phase had a share each time, which never fell, began at 0 and came as far as ``low``."""
        shares = self.told[text]
        return None not in shares and shares == sorted(shares) and shares[0] == 0 and 1 > shares[-1] >= low


def test_long_phases_tell_how_much_is_done(bert_export, tmp_path):
    source = bert_export / "export" / "model.onnx"
    seen = Shares()
    optimize(OptimizeConfig(source, tmp_path / "o.onnx"), seen)
    assert seen.rises("comparing with the original", 0.9)
    save_tokenizer(tmp_path, 500, ("input_ids", "attention_mask", "token_type_ids"))
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"text": f"a word {n} of list", "label": n % 2}) for n in range(40)))
    quantize(QuantizeConfig(tmp_path / "o.onnx", tmp_path / "q.onnx", calibration=str(tmp_path / "d.jsonl")), seen)
    assert seen.rises("calibrating", 0.7)
    assert seen.rises("comparing with float", 0.9)
    check(tmp_path / "o.onnx", source, "reassociate", progress=seen)
    assert seen.rises(f"comparing {source} with {tmp_path / 'o.onnx'}", 0.9)
    paths = [tmp_path / "o.onnx", tmp_path / "q.onnx"]
    evaluate(paths, tmp_path / "d.jsonl", BenchmarkConfig(8, rounds=1), seen)
    assert seen.rises(f"answering {tmp_path / 'd.jsonl'}", 0.5)
    np.savez(tmp_path / "d.npz", input_ids=np.ones((40, 4), np.int64), attention_mask=np.ones((40, 4), np.int64))
    arrays = Shares()
    evaluate(paths, tmp_path / "d.npz", BenchmarkConfig(8, rounds=1), arrays)
    assert arrays.rises(f"predicting with {paths[0]}", 0.3)
    assert arrays.told[f"predicting with {paths[1]}"][0] == 0.5
    compare_models(paths, BenchmarkConfig(1, 8, rounds=1), progress=seen)
    assert seen.rises("measuring memory", 0.5)
    assert seen.told["comparing outputs"] == [0]
    assert seen.rises("measuring", 0.7) or seen.told["measuring"].count(0) == 2

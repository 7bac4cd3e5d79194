"""Side by side: every baseline can be made, who fails is named, and each speed stands beside a parity that can fail."""

import json
import re

import numpy as np
import pytest

from onnxfuse.cli import judge
from onnxfuse.config import BenchmarkConfig, OptimizeConfig
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.io import folders
from onnxfuse.pipeline import baselines, compare
from onnxfuse.pipeline.compare import Candidate
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.verify.masks import row_lengths
from tests.cli.test_cli import expect_one_line
from tests.marks import OPENVINO

PLAN = BenchmarkConfig(batch=2, length=8, threads=1, rounds=1)


def model(bert_export):
    return bert_export / "export" / "model.onnx"


@OPENVINO
def test_files_runtimes_and_peers(bert_export, tmp_path):
    step = optimize(OptimizeConfig(model(bert_export), tmp_path / "o.onnx"))
    outcome = compare.compare_models(
        [model(bert_export), step.path], PLAN, runtimes=("openvino",), against=baselines.choose("quantize-dynamic")
    )
    assert not outcome.failed
    assert list(outcome.rows) == [f"{model(bert_export)} in openvino", f"{step.path} in openvino", "quantize-dynamic"]
    first, *others = outcome.rows.values()
    assert first.parity is None
    assert all(row.parity.passed for row in others)
    assert [row.candidate.ours for row in outcome.rows.values()] == [False, True, False]
    assert [row.candidate.kind for row in outcome.rows.values()] == ["fp32", "fp32", "int8"]
    assert all(row.size and row.peak_memory for row in list(outcome.rows.values())[:2])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs, at the first call of what torch.compile compiles
def test_every_peer_takes_part_or_says_why(bert_export):
    outcome = compare.compare_models([model(bert_export)], PLAN, against=baselines.choose("all"))
    refusals = {
        "ibert": "takes the weights of RoBERTa, and",
        "openvino-bf16": "no bfloat16 products",
        "openvino-int8-bf16": "no bfloat16 products",
        "sentence-transformers": "gives a sentence_embedding, and this model logits",
        "sentence-transformers-onnx": "installs with transformers 4 alone",
        "ort-optimizer-int8": "Unable to find data type",
        "tensorflow": "does not say which TensorFlow checkpoint",
    }  # ONNX Runtime 1.31, on TorchScript exports
    for name, why in outcome.failed.items():
        assert refusals.get(name, "nothing") in why, (name, why)
    assert len(outcome.rows) + len(outcome.failed) == 1 + len(baselines.known())
    for name in set(baselines.known()) & set(outcome.rows):
        assert outcome.rows[name].parity.cosine > 0.9, name


def runner(change):
    def run(feeds):
        return {"y": feeds["x"] * 2 + change, "more": feeds["x"]} if change is not None else {}

    return run


def test_a_wrong_or_failing_candidate_is_not_hidden():
    def fail(feeds):
        raise ModelError("cannot")

    inputs = [{"x": np.random.default_rng(seed).standard_normal((2, 3))} for seed in range(2)]
    entries = [
        Candidate("first", "fp32", lambda feeds: {"y": feeds["x"] * 2}),
        Candidate("same", "fp32", runner(0.0)),
        Candidate("off", "fp32", runner(0.1)),
        Candidate("silent", "fp32", runner(None)),
        Candidate("broken", "fp32", fail),
    ]
    failed = {}
    rows = compare.measure(entries, inputs, 1, failed)
    assert set(rows) == {"first", "same", "off"}
    assert rows["same"].parity.passed
    assert not rows["off"].parity.passed
    assert failed == {"silent": "there is no output 'y', which the reference has; there is none", "broken": "cannot"}


def test_benchmark_against_from_the_command_line(cli, bert_export, tmp_path):
    (tmp_path / "m").symlink_to(model(bert_export).parent)  # under a long name, rows go by their numbers
    result = cli(
        "benchmark",
        "m/model.onnx",
        "--against",
        "torch,quantize-dynamic",
        "--length",
        8,
        "--rounds",
        1,
        "--threads",
        1,
        "--real",
        0.5,
        "--plot",
        "speed.svg",
    )
    assert result.returncode == 0, result.stderr
    assert re.search("torch .* max diff", result.stdout)
    assert re.search("quantize-dynamic .* cosine", result.stdout)
    assert "quantize-dynamic" in (tmp_path / "speed.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--against", "tensorrt"), "no baseline named tensorrt; choose all alone, or some of ctranslate2"),
        (("--against", "all,tensorrt"), "no baseline named tensorrt; choose all alone, or some of ctranslate2"),
        (("--against", ","), "no baseline named ','"),
        (("--runtime", "tpu"), "no runtime named 'tpu'"),
        (("--runtime", "ort", "--runtime", "litert"), "runtime litert takes .tflite files, and "),
        (("--rounds", 5, "--seconds", 2), "--rounds 5 and --seconds 2 both say how long to measure; give one of them"),
        (("--seconds", 0), "--seconds"),
        (("--plot", "speed.gif"), "wanted a file ending in .svg, .png, .pdf"),
    ],
)
def test_wrong_usage(cli, bert_export, arguments, words):
    expect_one_line(cli("benchmark", model(bert_export), *arguments), 2, words)


def test_seconds_instead_of_rounds(cli, bert_export):
    short, long = (
        cli("benchmark", model(bert_export), "--length", 8, "--threads", 1, "--seconds", seconds, *form)
        for seconds, form in ((0.1, ()), (1, ("--json",)))
    )
    assert "batch 1, length 8, 1 threads, 0.1 seconds each" in short.stdout
    (result,) = json.loads(long.stdout)["results"]
    assert result["latency"]["samples"] > 40, "of a model that takes milliseconds"


def test_a_folder_stands_for_every_model_in_it(tmp_path):
    for name in (*folders.MADE, *folders.LITERT, "other.onnx"):
        (tmp_path / name).touch()
    found = [path.name for path in judge._models_in(tmp_path)]
    assert found == [*folders.MADE, *folders.LITERT], "the float model that another runtime is fastest with, and static int8 too"


def test_pytorch_needs_the_record_of_the_export(bert_export, tmp_path):
    (tmp_path / "model.onnx").write_bytes(model(bert_export).read_bytes())
    with pytest.raises(UsageError, match=r"does not say which PyTorch checkpoint model\.onnx came from"):
        baselines.known()["torch"].open(baselines.Context(tmp_path / "model.onnx", "bert", tmp_path))


def test_the_record_says_the_framework_as_data(bert_export, tmp_path, monkeypatch):
    monkeypatch.chdir(bert_export)  # where the checkpoint of a folder that was copied is looked for
    (tmp_path / "model.onnx").write_bytes(model(bert_export).read_bytes())
    record = json.loads((bert_export / "export" / "onnxfuse.json").read_text())
    assert record["export"]["framework"] == "pt"
    for framework in ("pt", "tf"):
        record["export"] |= {"framework": framework, "from": "somewhere"}
        (tmp_path / "onnxfuse.json").write_text(json.dumps(record))
        if framework == "pt":
            assert baselines.checkpoint_of(tmp_path / "model.onnx").task == "text-classification"
        else:
            with pytest.raises(UsageError, match="does not say which PyTorch checkpoint"):
                baselines.checkpoint_of(tmp_path / "model.onnx")


def test_peers_are_chosen_by_name():
    assert baselines.choose("all") == list(baselines.known().values())
    assert [each.name for each in baselines.choose("torch, openvino,torch")] == ["torch", "openvino"]
    with pytest.raises(UsageError):
        baselines.choose("")


@pytest.mark.parametrize(("batch", "real"), [(8, 0.4), (8, 0.9), (3, 0.5), (1, 0.25)])
def test_row_lengths_keep_their_share(batch, real):
    lengths = row_lengths(batch, 128, real)
    assert len(lengths) == batch
    assert abs(sum(lengths) / (128 * batch) - real) < 0.02
    assert lengths == tuple(sorted(lengths, reverse=True))
    assert batch == 1 or lengths[0] == 128

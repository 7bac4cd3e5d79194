"""Tuning: the rule of choice, resuming, and a run on a real export that ends in a target file that works."""

import json
from dataclasses import replace

import pytest

from onnxfuse import native, targets
from onnxfuse.config import OptimizeConfig, TuneConfig
from onnxfuse.errors import MissingExtraError, UsageError
from onnxfuse.measure.benchmark import Ratio
from onnxfuse.measure.machine import here
from onnxfuse.pipeline import tune, tune_measure
from onnxfuse.pipeline.alternatives import chosen_with, forms_of
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.trials import Known, Trial
from onnxfuse.pipeline.tune import best
from onnxfuse.pipeline.tune_measure import NOISE
from onnxfuse.runtime import runtimes
from tests.cli.test_cli import expect_one_line
from tests.marks import OPENVINO, OTHERS


def trial(option, low, value, high):
    return Trial("gelu", option, 10.0, Ratio(value, low, high))


@pytest.mark.parametrize(
    ("trials", "wanted"),
    [
        ([trial(NOISE, 0.97, 1.0, 1.03), trial("a", 1.04, 1.06, 1.08), trial("b", 1.05, 1.05, 1.06)], "a"),
        ([trial(NOISE, 0.97, 1.0, 1.03), trial("a", 1.02, 1.06, 1.08)], ""),  # within the noise
        ([trial(NOISE, 0.90, 0.92, 0.95), trial("a", 0.99, 1.2, 1.4)], ""),  # may be slower
        ([trial(NOISE, 0.97, 1.0, 1.03), Trial("gelu", "a", refused="cannot")], ""),
        ([trial(NOISE, 0.97, 1.0, 1.03)], ""),
    ],
)
def test_the_rule(trials, wanted):
    assert best(trials) == wanted


def plan(bert_export, tmp_path, **options):
    return TuneConfig(
        bert_export / "export" / "model.onnx",
        tmp_path / "mine.json",
        length=16,
        rounds=2,
        threads=1,
        precisions=("fp32", "int8"),
        runtimes=("ort", "openvino"),
        **{"batch": 1, **options},
    )


def test_tune_from_the_command_line(cli, bert_export, tmp_path):
    """One real run, from the arguments to a target file that optimizes."""
    source = bert_export / "export" / "model.onnx"
    result = cli(
        "tune",
        source,
        "-o",
        "mine.json",
        "--length",
        8,
        "--rounds",
        1,
        "--threads",
        1,
        "--real",
        0.5,
        "--precision",
        "fp32",
        "--precision",
        "int8",
        "--runtime",
        "ort",
        "--runtime",
        "openvino",
    )
    assert result.returncode == 0, result.stderr
    assert "attention: MultiHeadAttention:" in result.stdout
    assert "chosen: attention " in result.stdout
    target = targets.find(str(tmp_path / "mine.json"))
    assert (target.name, target.measured["from"], target.measured["rule"]) == ("mine", "cpu", tune.RULE)
    assert target.measured["machine"]
    things = {trial["thing"] for trial in target.measured["trials"]}
    assert things >= {"form", "attention", "qkv", "gelu", "residual", "padding", "denormals_as_zero", "spinning"}
    assert "threads" not in things  # given
    assert not (tmp_path / "mine.json.partial").exists()
    assert optimize(
        OptimizeConfig(source, tmp_path / "o.onnx", target=str(tmp_path / "mine.json"), require=("all",))
    ).parity.passed
    expect_one_line(
        cli("tune", source, "--precision", "fp8"), 2, "no precision named 'fp8'; choose from fp32, fp16, bf16, int8, int8-static"
    )


def test_what_makes_the_same_model_is_not_measured(bert_export, tmp_path, monkeypatch):
    """A BERT of any length has no odd number of tokens to begin with."""
    trying = tune_measure.Measuring(plan(bert_export, tmp_path))
    base = targets.find("cpu")
    measured = []
    monkeypatch.setattr(tune_measure.benchmark, "measure", lambda *_, **__: measured.append(1))
    (found,) = trying.measure("rows", base, {"even": chosen_with(base, "rows", "even")})
    assert (found.option, found.refused, measured) == ("even", tune_measure.SAME, [])


@OTHERS
def test_tune_goes_on_where_it_was_interrupted(bert_export, tmp_path, monkeypatch):
    measured = []

    def until_residual(self, thing, chosen, variants, then):
        measured.append(thing)
        if measured.count("residual") == 1 and thing == "residual":
            raise KeyboardInterrupt
        return [
            Trial(thing, NOISE, 9.0, Ratio(1.0, 1.0, 1.0)),
            *(Trial(thing, name, 9.0, Ratio(0.9, 0.9, 0.9)) for name in variants),
        ]

    monkeypatch.setattr(tune_measure.Measuring, "measure", until_residual)
    with pytest.raises(KeyboardInterrupt):
        tune.tune(plan(bert_export, tmp_path))
    assert not (tmp_path / "mine.json").exists()
    before = json.loads((tmp_path / "mine.json.partial").read_text())["done"]
    outcome = tune.tune(plan(bert_export, tmp_path))
    assert measured[:4] == ["form", "attention", "gelu", "residual"]
    assert not {"form", "attention", "gelu"} & set(measured[4:])
    kept = [trial.to_json() for trial in outcome.trials]
    assert all(trial in kept for trials in before.values() for trial in trials)
    assert not (tmp_path / "mine.json.partial").exists()


def test_ctrl_c_says_that_it_goes_on(cli, bert_export, monkeypatch):
    def until(thing):
        def measure(self, measured, chosen, variants, then):
            if measured == thing:
                raise KeyboardInterrupt
            return [trial(NOISE, 1, 1, 1)]

        return measure

    monkeypatch.setattr(tune_measure.Measuring, "measure", until("form"))
    command = ("tune", bert_export / "export", "-o", "t.json", "--precision", "fp32", "--precision", "int8", "--threads", 1)
    expect_one_line(cli(*command), 130, "interrupted; no file is half-written; nothing was saved")
    monkeypatch.setattr(tune_measure.Measuring, "measure", until("qkv"))
    expect_one_line(cli(*command), 130, "run the same command to go on")


def test_static_int8_alone_is_where_it_starts(bert_export, tmp_path, monkeypatch):
    monkeypatch.setattr(tune_measure.Measuring, "measure", lambda self, thing, chosen, variants, then: [trial(NOISE, 1, 1, 1)])
    wanted = replace(plan(bert_export, tmp_path), precisions=("int8-static",), runtimes=("openvino",))
    target = tune.tune(wanted).target
    assert (target["precision"], target.session.runtime) == ("int8-static", "openvino")


def test_what_no_runtime_computes_as_it_is_meant_is_refused(bert_export, tmp_path):
    wanted = replace(plan(bert_export, tmp_path), precisions=("int8",), runtimes=("openvino",))
    with pytest.raises(UsageError, match=r"openvino computes int8 in float32, right but slow; choose another of --precision or "):
        tune.tune(wanted)
    offered = forms_of(replace(wanted, precisions=("fp32", "int8", "int8-static"), runtimes=("ort", "openvino")))
    ours = ("fp32 in ort, native", "int8 in ort, native") if native.is_built() else ()
    assert offered == ("fp32 in ort", "fp32 in openvino", "int8 in ort", "int8-static in ort", "int8-static in openvino", *ours)


def test_another_plan_starts_anew(bert_export, tmp_path):
    first = Known(plan(bert_export, tmp_path), here())
    first.add("gelu", [trial("a", 1, 1, 1)])
    assert Known(plan(bert_export, tmp_path), here()).trials("gelu") == [trial("a", 1, 1, 1)]
    assert not Known(plan(bert_export, tmp_path, batch=2), here()).trials("gelu")


def test_a_slower_result_is_not_kept(bert_export, tmp_path, monkeypatch):
    def measure(self, thing, chosen, variants, then):
        speed = (0.9, 0.95, 1.0) if thing == "all" else (1.5, 1.6, 1.7)
        return [trial(NOISE, 0.99, 1, 1.01), *(trial(name, *speed) for name in variants)]

    monkeypatch.setattr(tune_measure.Measuring, "measure", measure)
    outcome = tune.tune(plan(bert_export, tmp_path))
    assert outcome.target.chosen == targets.find("cpu").chosen
    assert outcome.target["precision"] == "fp32"


@OPENVINO
def test_what_a_runtime_rejects_is_said(bert_export, tmp_path):
    trials = tune_measure.Measuring(plan(bert_export, tmp_path))
    base = chosen_with(targets.find("cpu"), "runtime", "openvino")
    found = trials.measure("opset", base, {"old": replace(base, opset=10, highest=10), "other": base.choosing(gelu="BiasGelu")})
    refused, taken = (next(item for item in found if item.option == name) for name in ("old", "other"))
    assert "the model has opset 17, target 'cpu' reads up to 10" in refused.refused
    assert refused.speed is None
    assert taken.speed.value > 0


def test_a_runtime_that_is_not_to_be_had_is_told_before_the_work(bert_export, tmp_path, monkeypatch):
    def missing():
        raise MissingExtraError("running it", "it")

    known = runtimes(".onnx")
    gone = known | {"openvino": replace(known["openvino"], require=missing)}
    monkeypatch.setattr(tune, "runtimes", lambda suffix="": gone)
    told = []
    with pytest.raises(MissingExtraError, match="running it needs packages"):
        tune.tune(replace(plan(bert_export, tmp_path), runtimes=("ort", "openvino")), lambda *said: told.append(said))
    assert not told


def test_unknown_runtime(bert_export, tmp_path):
    with pytest.raises(UsageError, match="no runtime named 'tpu'"):
        tune.tune(TuneConfig(bert_export / "export" / "model.onnx", tmp_path / "t.json", runtimes=("ort", "tpu")))

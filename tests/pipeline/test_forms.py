"""Every form of a model beside the others: which are tried, held to what, which one ``load`` then opens, and where."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import onnxfuse
from onnxfuse import targets
from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig, Scheme
from onnxfuse.errors import MissingExtraError, ModelError
from onnxfuse.io import folders, onnx_file
from onnxfuse.measure import fastest, machine
from onnxfuse.measure.benchmark import Ratio, summarize
from onnxfuse.pipeline import alternatives, card, forms, tune_measure
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.pipeline.run import run_all
from onnxfuse.runtime import Settings, openvino, runtimes
from tests.conftest import save_tokenizer, small_model
from tests.marks import OPENVINO

IN_OPENVINO = ("optimized in OpenVINO", "static int8 in OpenVINO")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small BERT with a tokenizer, so that int8 is calibrated."""
    folder = tmp_path_factory.mktemp("spoken") / "checkpoint"
    small_model("bert", "AutoModelForSequenceClassification", layers=2).save_pretrained(folder)
    save_tokenizer(folder, 90)
    return folder


@pytest.fixture(scope="module")
def ran(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "model"
    plan = ExportConfig(str(checkpoint), out, exporter="torchscript")
    return run_all(plan, "cpu", BenchmarkConfig(2, 8, 1, rounds=2))


@pytest.fixture
def folder(ran, tmp_path):
    return Path(shutil.copytree(ran.optimize.path.parent, tmp_path / "model"))


def rewrite(folder, **changes):
    """The folder's record with other values in what it says is the fastest."""
    path = folder / folders.RECORD
    content = json.loads(path.read_text())
    content[fastest.STEP][fastest.KEY] |= changes
    path.write_text(json.dumps(content))


def names(folder, file, runtime="ort", **changes):
    """The record names another form."""
    settings = vars(Settings(runtime, threads=1))
    named = {"name": fastest.name_of(file, runtime), "fingerprint": folders.fingerprint(folder / file)}
    rewrite(folder, file=file, settings=settings, **named | changes)


def test_run_measures_every_form_and_writes_the_fastest_down(ran):
    assert ran.static.description.format == "qdq-source" and ran.static.parity.passed
    assert set(ran.timings) >= {"PyTorch", "ONNX", "optimized", "int8", "static int8", *IN_OPENVINO}
    assert all(ran.parity[name].passed for name in ran.timings if name != "PyTorch")
    assert not any("int8 in" in name and not name.startswith("static") for name in ran.timings), "dynamic int8 is float there"
    recorded = folders.recorded(ran.optimize.path.parent)[fastest.STEP]
    assert recorded[fastest.KEY]["file"] in fastest.FILES
    assert recorded[fastest.KEY]["machine"] == list(machine.kind())
    assert recorded["rows"]["static int8 in OpenVINO"]["file"] == folders.STATIC
    answer = ran.to_json()
    places = {row["name"]: row["path"] for row in answer["results"]}
    assert Path(places["static int8 in OpenVINO"]).is_file() and Path(places["optimized"]).is_file()
    assert answer["fastest"]["name"] in {row["name"] for row in answer["results"]}
    loaded = onnxfuse.load(ran.optimize.path.parent)
    assert loaded.path.name == ran.fastest.file and "was measured as the fastest here" in str(loaded)


def test_a_target_of_another_runtime_makes_one_int8_model_and_measures_it_there(checkpoint, tmp_path):
    plan = ExportConfig(str(checkpoint), tmp_path / "out", exporter="torchscript")
    made = run_all(plan, "openvino", BenchmarkConfig(2, 8, 1, rounds=3))
    assert made.quantize.precision == "int8-static"
    assert (made.static, made.elsewhere, made.unstatic) == (None, None, "int8 is static already")
    assert sorted(path.name for path in plan.out.glob("*.onnx")) == [folders.MODEL, folders.OPTIMIZED, folders.QUANTIZED]
    assert set(made.timings) >= {"PyTorch", "ONNX", "optimized", "int8", "optimized in OpenVINO", "int8 in OpenVINO"}
    assert all(made.parity[name].passed for name in made.timings if name != "PyTorch")
    places = {"optimized": made.optimize.path, "int8": made.quantize.path}
    many = {name: timing(*[10] * 6) for name in made.timings}
    chosen = [
        forms.choose(made.others, places, targets.find("openvino").session, 0, many | faster).name
        for faster in ({}, {"optimized": timing(*[5] * 6)})
    ]
    assert chosen == ["int8 in OpenVINO", "optimized"], "what load opens elsewhere is what the others must beat"
    assert made.fastest.speed is None, "three rounds prove nothing"


def test_without_calibration_data_a_run_for_static_int8_goes_without(tmp_path):
    small_model("vit", "AutoModelForImageClassification", layers=2).save_pretrained(tmp_path / "vit")
    plan = ExportConfig(str(tmp_path / "vit"), tmp_path / "out", exporter="torchscript")
    made = run_all(plan, "openvino", BenchmarkConfig(1, 0, 1, rounds=1))
    assert made.quantize is None and made.unquantized.startswith(
        "static int8 needs calibration data; give --calibration DATA to onnxfuse"
    )
    assert made.unquantized.count("--calibration") == 1 and "sentences do not give its pixel_values" in made.unquantized


def the_fastest(monkeypatch, name):
    monkeypatch.setattr(fastest, "choose", lambda timings, usual, others: (name, Ratio(2.0, 1.5, 2.5)))


@pytest.mark.parametrize("name", ["optimized in OpenVINO", "static int8 in OpenVINO"])
def test_float_is_fused_for_each_runtime_and_stays_where_it_wins(checkpoint, tmp_path, monkeypatch, name):
    the_fastest(monkeypatch, name)
    plan = ExportConfig(str(checkpoint), tmp_path / "out", exporter="torchscript")
    made = run_all(plan, "cpu", BenchmarkConfig(2, 8, 1, rounds=1))
    recorded, place = folders.recorded(plan.out)[fastest.STEP], plan.out / folders.FUSED
    assert recorded["rows"]["optimized in OpenVINO"]["file"] == folders.FUSED
    assert recorded["rows"]["optimized"]["file"] == folders.OPTIMIZED
    told = next(row["path"] for row in made.to_json()["results"] if row["name"] == "optimized in OpenVINO")
    wins = name == "optimized in OpenVINO"
    assert (place.is_file(), told) == (wins, str(place) if wins else None)
    loaded = onnxfuse.load(plan.out)
    assert (loaded.path.name, loaded.settings.runtime) == (folders.FUSED if wins else folders.STATIC, "openvino")
    if wins:
        kinds = {node.op_type for node in onnx_file.load(place).graph}
        assert "Attention" not in kinds and "Softmax" in kinds, "as its target has it"


def test_what_is_fused_for_another_runtime_is_not_left_behind_by_a_failure(checkpoint, tmp_path, monkeypatch):
    def broken(*_):
        raise ModelError("it breaks")

    monkeypatch.setattr(forms, "quantize", broken)
    out = tmp_path / "out"
    with pytest.raises(ModelError, match="it breaks"):
        run_all(ExportConfig(str(checkpoint), out, exporter="torchscript"), "cpu", BenchmarkConfig(2, 8, 1, rounds=1))
    assert (out / folders.QUANTIZED).is_file() and not (out / folders.FUSED).exists()


def test_a_model_for_that_runtime_is_not_fused_again(ran):
    same = replace(ran.optimize, target="openvino")
    assert forms.fuse_elsewhere(ran.export.model, same, targets.find("cpu"), lambda *_: None) is None


def test_a_card_shows_the_usual_runtimes_rows(ran):
    known = card.measured({"float": ran.optimize.path, "int8": ran.quantize.path})
    assert known["p50"]["float"] == ran.timings["optimized"].p50
    assert known["p50"]["int8"] == ran.timings["int8"].p50


def test_the_form_that_the_record_names_is_opened(folder):
    names(folder, folders.STATIC, "openvino")
    model = onnxfuse.load(folder)
    assert (model.path.name, model.settings.runtime) == (folders.STATIC, "openvino")
    assert str(model).endswith("static int8 in OpenVINO was measured as the fastest here")
    assert onnxfuse.load(folder, threads=2).settings.threads == 2
    usual = onnxfuse.load(folder, runtime="ort")
    assert (usual.path.name, usual.why) == (folders.QUANTIZED, "")
    assert onnxfuse.load(folder / folders.OPTIMIZED).path.name == folders.OPTIMIZED


@OPENVINO
def test_a_runtime_that_is_asked_for_gets_the_best_file_that_it_computes_as_it_is_meant(folder):
    assert onnxfuse.load(folder, runtime="openvino").path.name == folders.STATIC
    (folder / folders.STATIC).unlink()
    assert onnxfuse.load(folder, runtime="openvino").path.name == folders.OPTIMIZED, "dynamic int8 is float there, and slow"
    assert onnxfuse.load(folder / folders.QUANTIZED, runtime="openvino").path.name == folders.QUANTIZED, "as asked"


def test_on_another_kind_of_machine_the_usual_form_is_opened(folder, monkeypatch):
    names(folder, folders.STATIC, "openvino")
    other = {*machine.DECISIVE} - {*machine.kind()} or {"avx2"}
    monkeypatch.setattr(machine, "flags", lambda: other)
    model = onnxfuse.load(folder)
    assert (model.path.name, model.settings.runtime) == (folders.QUANTIZED, "ort")
    there = ", ".join(json.loads((folder / folders.RECORD).read_text())[fastest.STEP][fastest.KEY]["machine"])
    assert f"was the fastest on another kind of machine ({there}); onnxfuse run here finds this one's" in str(model)


def test_a_file_that_was_made_again_is_not_the_one_that_was_measured(folder):
    names(folder, folders.STATIC, "openvino")
    shutil.copy(folder / folders.QUANTIZED, folder / folders.STATIC)
    model = onnxfuse.load(folder)
    assert model.path.name == folders.QUANTIZED and "is not that file any more" in str(model)


@pytest.mark.parametrize(
    ("why", "said"),
    [
        (MissingExtraError("running models with OpenVINO", "openvino"), "with OpenVINO needs packages that are not installed"),
        (ModelError("it takes CPUs of another maker alone"), "and it takes CPUs of another maker alone"),
    ],
    ids=["not installed", "another CPU"],
)
def test_without_the_runtime_the_usual_form_is_opened(folder, monkeypatch, why, said):
    names(folder, folders.STATIC, "openvino")

    def missing(*_):
        raise why

    known = runtimes()
    monkeypatch.setattr(
        "onnxfuse.runtime.runtimes", lambda suffix="": known | {"openvino": replace(known["openvino"], require=missing)}
    )
    model = onnxfuse.load(folder)
    assert (model.path.name, model.settings.runtime) == (folders.QUANTIZED, "ort")
    assert said in str(model)


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../../../etc/passwd"},
        {"file": ["model.onnx"]},
        {"settings": {"runtime": "tpu"}},
        {"settings": {"runtime": "litert"}},
        {"name": "int8 in another runtime"},
        {"settings": {"shell": "rm"}},
        {"settings": None},
        {"machine": None},
        {"machine": 7},
    ],
    ids=str,
)
def test_a_strangers_record_is_passed_over(folder, changes):
    rewrite(folder, **changes)
    model = onnxfuse.load(folder)
    assert model.path.name == folders.QUANTIZED
    assert model.why == "what onnxfuse.json has as the fastest is not what this onnxfuse writes; onnxfuse run here finds it"


@OPENVINO
def test_a_form_that_differs_takes_no_part(ran, monkeypatch):
    """A runtime whose outputs are wrong is told, and never the fastest."""

    def wrong(path, settings, precision):
        run = openvino.open_runner(path, settings, precision)
        return lambda feeds: {name: -array for name, array in run(feeds).items()}

    known = runtimes()
    odd = replace(known["openvino"], open=lambda path, settings: wrong(path, settings, "f32"))
    monkeypatch.setattr(forms, "runtimes", lambda suffix="": {"ort": known["ort"], "openvino": odd})
    monkeypatch.setattr("onnxfuse.runtime.runtimes", lambda suffix="": {"ort": known["ort"], "openvino": odd})
    files = {ran.optimize.path: "fp32", ran.quantize.path: "int8", ran.static.path: "int8-static"}
    others = forms.Others.of(files, Settings(threads=1), ran.export.original, ran.export.model.inputs, ran.quantize.real)
    assert [form.name for form in others.forms] == ["static int8"]
    assert [line.partition(" is too far from the original: ")[0] for line in others.refused] == list(IN_OPENVINO)


def test_what_is_not_installed_is_one_line(ran, monkeypatch):
    def missing(*_):
        raise MissingExtraError("running models with OpenVINO", "openvino")

    known = runtimes()
    gone = {name: replace(each, require=missing) if "openvino" in name else each for name, each in known.items()}
    monkeypatch.setattr(
        forms, "runtimes", lambda suffix="": {name: each for name, each in gone.items() if suffix in each.suffixes}
    )
    monkeypatch.setattr("onnxfuse.runtime.runtimes", lambda suffix="": gone)
    cpu, files = targets.find("cpu"), {ran.optimize.path: "fp32", ran.static.path: "int8-static"}
    opened, refused = forms.open_forms(files, Settings(threads=1))
    assert [form.name for form in opened] == ["static int8"]
    assert len(refused) == 1 and refused[0].startswith("not tried: running models with OpenVINO needs packages that are not")
    assert forms.gains(cpu) is None
    assert forms.fuse_elsewhere(ran.export.model, ran.optimize, cpu, lambda *_: None) is None
    made, why = forms.static_int8(ran.optimize.model, ran.quantize, cpu, lambda *_: None)
    assert made is None and "pip install 'onnxfuse[openvino]'" in why


def test_a_runtime_in_another_guise_takes_part_where_the_first_is_missing(monkeypatch):
    def missing():
        raise MissingExtraError("running it", "it")

    def known(**absent):
        first, second = (replace(runtimes()["ort"], name=name, instead_of=of) for name, of in (("a", "b"), ("b", "")))
        made = {each.name: replace(each, require=missing) if each.name in absent else each for each in (first, second)}
        monkeypatch.setattr(forms, "runtimes", lambda suffix="": made)
        found, why = forms.here()
        return list(found), len(why)

    assert known() == (["b"], 0), "as fast as the other one: not measured"
    assert known(b=True) == (["a"], 1)
    assert known(a=True) == (["b"], 0), "nobody misses it"


def test_a_runtime_that_breaks_is_one_line_too(monkeypatch):
    def broken():
        raise RuntimeError("its library\nis of another machine")

    odd = replace(runtimes()["ort"], name="odd", require=broken)
    monkeypatch.setattr(forms, "runtimes", lambda suffix="": {"odd": odd})
    assert forms.here() == ({}, ["not tried: runtime odd cannot be used here: RuntimeError: its library is of another machine"])


def timing(*milliseconds):
    return summarize([each / 1e3 for each in milliseconds])


def test_the_rule_of_the_fastest():
    slow, fast, faster, noisy = timing(*[10] * 6), timing(*[8] * 6), timing(*[5] * 6), timing(2, 11, 2, 11, 2, 11)
    timings = {"int8": slow, "a": fast, "b": faster, "c": noisy}
    few = {"int8": timing(*[10] * 5), "a": timing(*[5] * 5)}
    assert fastest.choose(few, "int8", ["a"]) == ("int8", None), "five calls prove nothing"
    assert fastest.choose(timings, "int8", ["a", "b", "c"])[0] == "b"
    assert fastest.choose(timings, "int8", ["c"]) == ("int8", None), "its interval reaches below 1"
    assert fastest.choose(timings, "int8", ["a"])[1].value == pytest.approx(1.25)


def test_a_targets_static_form_is_made_as_openvino_reads_it(folder, tmp_path):
    """``optimize`` notes what ``tune`` chose, ``quantize`` makes it, and ``load`` opens it there."""
    base = alternatives.chosen_with(targets.find("cpu"), alternatives.FORM, "int8-static in openvino")
    (tmp_path / "mine.json").write_text(json.dumps(replace(base, name="mine").to_json()))
    optimized = optimize(OptimizeConfig(folder / folders.MODEL, folder / folders.OPTIMIZED, str(tmp_path / "mine.json")))
    step = quantize(QuantizeConfig(optimized.path, folder / folders.QUANTIZED))
    assert (step.description.scheme, step.description.format) == ("static", "qdq-source")
    assert quantize(QuantizeConfig(optimized.path, tmp_path / "q.onnx", Scheme(static=False))).description.scheme == "dynamic"
    assert onnxfuse.load(folder / folders.QUANTIZED).settings.runtime == "openvino"


def test_tune_calibrates_static_int8_or_says_that_it_cannot(ran, bert_export, tmp_path):
    from onnxfuse.config import TuneConfig

    def trials(source):
        wanted = {"precisions": ("fp32", "int8-static"), "runtimes": ("ort", "openvino"), "rounds": 1, "length": 8}
        tuning = tune_measure.Measuring(TuneConfig(source, tmp_path / "t.json", batch=1, **wanted))
        base = targets.find("cpu")
        return {
            trial.option: trial
            for trial in tuning.measure(
                alternatives.FORM, base, {"s": alternatives.chosen_with(base, alternatives.FORM, "int8-static in openvino")}
            )
        }

    assert trials(ran.export.path)["s"].speed is not None
    assert "static int8 needs calibration data" in trials(bert_export / "export" / "model.onnx")["s"].refused

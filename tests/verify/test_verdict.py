"""The one rule of judging: int8 on the real inputs that it was calibrated with, everything else on the grid, in every verb."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxfuse import targets
from onnxfuse.cli import tables
from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig, Thresholds, TuneConfig
from onnxfuse.errors import ModelError, ParityError, UsageError
from onnxfuse.evaluation import calibrated, sources
from onnxfuse.evaluation.dataset import Dataset
from onnxfuse.io import onnx_file
from onnxfuse.io.progress import silent
from onnxfuse.pipeline import alternatives, compare, tune_measure
from onnxfuse.pipeline.check import check, compare_all
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.rewrite import Lowering, Rule
from onnxfuse.runtime import Settings, open_runner
from onnxfuse.verify import parity, verdict
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import Case, grid
from onnxfuse.verify.inputs import profile_of
from onnxfuse.verify.opened import Opened
from tests.cli.test_cli import expect_one_line
from tests.conftest import fill, parse, save_tokenizer

WORDS, WIDTH = 400, 128


def spiky(path, factor=1000):
    """A model whose upper half of ids, which no real text holds, is so large that beside them int8 loses the others."""
    model = fill(
        parse(f"""g (int64[B,S] input_ids, int64[B,S] attention_mask, float[{WORDS},{WIDTH}] words, float[{WIDTH},{WIDTH}] w,
        float[{WIDTH}] gain) => (float[B,S,{WIDTH}] last_hidden_state) <float one = {{1}}, int64[1] last = {{2}}>
        {{ x = Gather(words, input_ids)  m = Cast<to=1>(attention_mask)  u = Unsqueeze(m, last)  z = Mul(x, u)  h = MatMul(z, w)
           last_hidden_state = LayerNormalization(h, gain) }}"""),
        words=(WORDS, WIDTH),
        w=(WIDTH, WIDTH),
        gain=(WIDTH,),
    )
    table = model.graph.initializers["words"].const_value.numpy().copy()
    table[WORDS // 2 :] *= factor
    model.graph.initializers["words"].const_value = ir.tensor(table)
    model.graph.initializers["gain"].const_value = ir.tensor(np.ones(WIDTH, np.float32))
    onnx_file.save(model, path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Inputs as real ones are: ids of the lower half."""
    path = tmp_path_factory.mktemp("data") / "real.npz"
    ids = np.random.default_rng(0).integers(0, WORDS // 2, (80, 6))
    np.savez(path, input_ids=ids, attention_mask=np.ones_like(ids))
    return path


@pytest.fixture(scope="module")
def made(data, tmp_path_factory):
    """A folder with such a model, and what ``quantize`` made of it with that data."""
    folder = tmp_path_factory.mktemp("made")
    quantize(QuantizeConfig(spiky(folder / "model.onnx"), folder / "model_quantized.onnx", calibration=str(data)))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of it."""
    for file in made.iterdir():
        shutil.copy(file, tmp_path)
    return tmp_path


def forget(folder):
    """Take out of the int8 file what it says of its calibration."""
    model = onnx_file.load(folder / "model_quantized.onnx")
    model.metadata_props.pop(calibrated.METADATA)
    onnx_file.save(model, folder / "other.onnx")
    shutil.move(folder / "other.onnx", folder / "model_quantized.onnx")


def test_quantize_judges_on_the_data_it_calibrated_with(made, data):
    parity_ = json.loads((made / "onnxfuse.json").read_text())["quantize"]["parity"]
    assert (parity_["passed"], parity_["real"], parity_["cases"]) == (True, f"../{data.parent.name}/{data.name}", calibrated.REAL)
    assert parity_["cosine"] > 0.99


def test_check_does_too_and_says_so(cli, folder, data):
    data = shutil.copy(data, folder)
    result = cli("check", folder / "model.onnx", folder / "model_quantized.onnx", "--kind", "int8")
    assert result.returncode == 0, result.stderr
    assert f"equal within 'int8' on 8 batches of {data}, and finite on random inputs" in result.stdout


def test_without_calibration_random_inputs_decide(cli, folder):
    """What real inputs hide: on random ids the same file is wrong, and is said to be when nothing tells of real ones."""
    forget(folder)
    result = cli("check", folder / "model.onnx", folder / "model_quantized.onnx", "--kind", "int8")
    assert result.returncode == 5
    assert "has cosine 0." in result.stderr
    assert "saved" not in result.stderr  # check saves nothing
    with pytest.raises(
        ParityError, match=r"the int8 model is not close enough to float: .* wanted at least 0\.98; .*q\.onnx was not written"
    ):
        quantize(QuantizeConfig(folder / "model.onnx", folder / "q.onnx", calibration="none"))
    assert not (folder / "q.onnx").exists()


def test_bars_take_the_place_of_the_tolerance(folder, data):
    """A threshold of the user's own is the judge; on the grid and on real inputs the file must be finite."""
    step = quantize(
        QuantizeConfig(
            folder / "model.onnx", folder / "q.onnx", calibration="none", data=data, thresholds=Thresholds(min_cosine=0.5)
        )
    )
    assert (step.parity.kind, step.parity.real) == ("finite", "")
    assert step.parity.cosine < 0.98
    step = quantize(
        QuantizeConfig(folder / "model.onnx", folder / "q.onnx", calibration=str(data), thresholds=Thresholds(min_cosine=0.5))
    )
    assert (step.parity.kind, step.parity.real) == ("finite", str(data))


def test_other_kinds_are_judged_on_the_grid(folder):
    assert check(folder / "model.onnx", folder / "model.onnx", "exact").real == ""
    assert not check(folder / "model.onnx", folder / "model_quantized.onnx", "reassociate").passed


@pytest.mark.parametrize("place", ["beside", "named in the record", "beside the reference", "relative to the folder"])
def test_the_data_are_found_again(made, data, tmp_path, place):
    home, other = tmp_path / "home", tmp_path / "other"
    for folder in (home, other):
        folder.mkdir()
    shutil.copy(made / "model_quantized.onnx", home)
    shutil.copy(made / "model.onnx", other)
    if place == "named in the record":
        shutil.copy(data, home)
        (home / "onnxfuse.json").write_text(json.dumps({"quantize": {"plan": {"calibration": str(home / data.name)}}}))
    else:
        to = {"beside": home, "beside the reference": other, "relative to the folder": home / "sub"}[place]
        to.mkdir(exist_ok=True)
        shutil.copy(data, to)
        if place == "relative to the folder":
            (home / "onnxfuse.json").write_text(json.dumps({"quantize": {"plan": {"calibration": f"sub/{data.name}"}}}))
    assert calibrated.real_inputs(home / "model_quantized.onnx", other / "model.onnx").name.endswith(data.name)


@pytest.mark.parametrize("way", ["named in the record", "named by the model", "a link"])
def test_data_outside_the_folder_are_not_read(folder, data, way):
    """Who sends a model could have any file read so."""
    (folder / "onnxfuse.json").unlink()
    if way == "named in the record":
        (folder / "onnxfuse.json").write_text(json.dumps({"quantize": {"plan": {"calibration": str(data)}}}))
    elif way == "named by the model":
        model = onnx_file.load(folder / "model_quantized.onnx")
        model.metadata_props[calibrated.METADATA] = json.dumps({"calibration": str(data)})
        onnx_file.save(model, folder / "model_quantized.onnx")
    else:
        (folder / data.name).symlink_to(data)
    with pytest.raises(
        UsageError, match=rf"{data.name} lies outside {folder}, where a model may not lead; put it beside the model, or"
    ):
        calibrated.real_inputs(folder / "model_quantized.onnx")


def test_data_that_are_gone_are_told_and_nothing_else_is_said(cli, folder, data):
    (folder / "onnxfuse.json").unlink()
    files = folder / "model.onnx", folder / "model_quantized.onnx"
    expect_one_line(
        cli("check", *files, "--kind", "int8"),
        2,
        "model_quantized.onnx was calibrated on real.npz",
        "real.npz is not in ",
        "check --data",
    )
    result = cli("check", *files, "--kind", "int8", "--data", data)
    assert result.returncode == 0, result.stderr
    result = cli("benchmark", *files, "--length", 5, "--rounds", 1, "--threads", 1)
    assert result.returncode == 0, result.stderr
    assert "not compared" in result.stdout
    assert "was calibrated on real.npz" in " ".join(result.stdout.split())
    found = json.loads(cli("benchmark", *files, "--length", 5, "--rounds", 1, "--threads", 1, "--json").stdout)["results"][1]
    assert "real.npz is not in " in found["unjudged"]


def test_a_record_of_other_data_does_not_lead_to_them(folder, data):
    (folder / "other.npz").write_bytes(data.read_bytes())
    (folder / "onnxfuse.json").write_text(json.dumps({"quantize": {"plan": {"calibration": str(folder / "other.npz")}}}))
    with pytest.raises(UsageError, match=r"real\.npz is not in "):
        calibrated.real_inputs(folder / "model_quantized.onnx")
    for record in ([], {"quantize": []}, {"quantize": {"plan": 3}}, {"quantize": {"plan": {"calibration": None}}}):
        (folder / "onnxfuse.json").write_text(json.dumps(record))
        with pytest.raises(UsageError, match=r"real\.npz is not in "):
            calibrated.real_inputs(folder / "model_quantized.onnx")


def test_metadata_of_others_are_refused(folder):
    for text in ("{", "7", '{"calibration": "x", "rows": "many"}', '{"calibration": "x", "rows": 0}', '{"calibration": 3}'):
        model = onnx_file.load(folder / "model_quantized.onnx")
        model.metadata_props[calibrated.METADATA] = text
        onnx_file.save(model, folder / "m.onnx")
        with pytest.raises(ModelError, match=r"m\.onnx: its metadata 'onnxfuse\.int8' is not (what onnxfuse writes|JSON)"):
            calibrated.real_inputs(folder / "m.onnx")


def test_models_that_were_not_calibrated_have_no_real_inputs(folder):
    assert calibrated.real_inputs(folder / "model.onnx") is None
    quantize(QuantizeConfig(spiky(folder / "even.onnx", 1), folder / "q.onnx", calibration="none"))
    assert calibrated.real_inputs(folder / "q.onnx") is None


def test_real_inputs_are_the_first_batches():
    ids = np.arange(100)[:, None]
    real = calibrated.real_of(Dataset("mine", {"x": ids}), 4)
    assert [case.feeds["x"].ravel().tolist() for case in real.cases] == [list(range(at, at + 4)) for at in range(0, 32, 4)]
    assert real.cases[1].name == "batch 1 of mine"


def test_the_rows_of_a_batch_are_those_of_the_calibration(folder, data):
    data = shutil.copy(data, folder)
    quantize(QuantizeConfig(folder / "model.onnx", folder / "q.onnx", calibration=str(data), batch=5))
    assert {len(case.feeds["input_ids"]) for case in calibrated.real_inputs(folder / "q.onnx").cases} == {5}


# The parts of the rule -------------------------------------------------------------------------------------------

X = np.arange(6, dtype=np.float32).reshape(2, 3)
RANDOM, REAL = (
    expect(lambda feeds: {"y": feeds["x"]}, [Case(name, {"x": X + at})]) for at, name in enumerate(("random", "real"))
)


def model(on_random, on_real):
    return lambda feeds: {"y": on_random if feeds["x"] is RANDOM[0].case.feeds["x"] else on_real}


def test_on_random_inputs_it_must_only_be_finite():
    assert verdict.judge(RANDOM, REAL, model(X[::-1], X + 1), "int8", "data").passed
    result = verdict.judge(RANDOM, REAL, model(X * np.float32(np.nan), X + 1), "int8", "data")
    assert result.failures == ("output 'y' is not finite on random",)


def test_on_real_inputs_it_must_be_close():
    result = verdict.judge(RANDOM, REAL, model(X, X[::-1]), "int8", "data")
    assert "has cosine" in result.failures[0]
    assert result.real == "data"


def test_without_real_inputs_the_grid_decides():
    assert not verdict.judge(RANDOM, [], model(X[::-1], X), "int8").passed
    assert verdict.judge(RANDOM, [], model(X, X), "int8").real == ""


# Default calibration, benchmark and tune -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A model with a tokenizer beside it, whose words all have ids of the lower half."""
    home = tmp_path_factory.mktemp("spoken")
    save_tokenizer(home, WORDS // 2)
    source = spiky(home / "model.onnx")
    quantize(QuantizeConfig(source, home / "model_quantized.onnx"))
    return home


def test_sentences_are_made_again_by_the_tokenizer(spoken, tmp_path):
    result = check(spoken / "model.onnx", spoken / "model_quantized.onnx", "int8")
    assert result.passed
    assert result.real == sources.DEFAULT_DATA
    shutil.copy(spoken / "model_quantized.onnx", tmp_path)
    assert check(spoken / "model.onnx", tmp_path / "model_quantized.onnx", "int8").real == sources.DEFAULT_DATA
    with pytest.raises(UsageError, match=r"judged on it, but no tokenizer lies beside the model; put it beside the model"):
        calibrated.real_inputs(tmp_path / "model_quantized.onnx")


def test_benchmark_judges_on_real_inputs(spoken):
    files = [spoken / "model.onnx", spoken / "model_quantized.onnx"]
    outcome = compare.compare_models(files, BenchmarkConfig(2, 6, threads=1, rounds=1))
    row = outcome.rows[str(files[1])]
    assert (row.candidate.kind, row.parity.passed, row.parity.real) == ("int8", True, sources.DEFAULT_DATA)
    assert tables.agreement_text(row) == f"cosine {row.parity.cosine:.4f}, real inputs"
    assert row.to_json()["parity"]["real"] == sources.DEFAULT_DATA
    wrong = replace(row.candidate, real=None, name="random")
    assert not compare.compare_outputs(
        [compare.from_file(files[0], "first", Settings()), wrong], [profile_of(onnx_file.load(files[0])).feeds(3, 7)], {}
    )["random"].passed


def test_every_operator_of_int8_makes_a_model_int8(made, tmp_path, data):
    step = quantize(
        QuantizeConfig(
            made / "model.onnx",
            tmp_path / "q.onnx",
            QuantizeConfig(made / "model.onnx", tmp_path / "q.onnx").scheme.__class__(static=True, format="qoperator"),
            str(data),
        )
    )
    assert compare.from_file(step.path, "static", Settings()).kind == "int8"
    assert compare.from_file(made / "model.onnx", "float", Settings()).kind == "fp32"


def test_tune_judges_int8_as_quantize_does(spoken, tmp_path):
    plan = TuneConfig(
        spoken / "model.onnx",
        tmp_path / "t.json",
        2,
        6,
        threads=1,
        rounds=1,
        precisions=("fp32", "int8"),
        model_type="distilbert",
    )
    trials = tune_measure.Measuring(plan)
    base = targets.find("cpu")
    trials = trials.measure(
        "precision", base, {name: alternatives.chosen_with(base, "precision", name) for name in ("fp32", "int8")}
    )
    assert [trial.refused for trial in trials] == ["", ""]
    assert tune_measure.Measuring(replace(plan, precisions=("fp32",))).real is None


# Files -----------------------------------------------------------------------------------------------------------


def save(path, text, **weights):
    onnx_file.save(fill(parse(text), **weights), path)
    return path


ADD = "g (float[B,3] x, float[B,3] z) => (float[B,3] y, float[B,3] w) { y = Add(x, z)  w = Sub(x, z) }"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "g (float[B,3] x) => (float[B,3] y, float[B,3] w) { y = Neg(x)  w = Abs(x) }",
            ("b.onnx has no input z, which", "a.onnx has", "b.onnx has x"),
        ),
        (ADD.replace("float[B,3] z)", "float[B,3] z, float[B,3] more)"), ("a.onnx has no input more, which", "b.onnx has")),
        (
            ADD.replace(", float[B,3] w", "").replace("  w = Sub(x, z)", ""),
            ("b.onnx has no output w, which", "a.onnx has", "b.onnx has y"),
        ),
        (
            ADD.replace("float[B,3] w)", "float[B,3] w, float[B,3] v)").replace("}", " v = Mul(x, z) }"),
            ("a.onnx has no output v, which", "b.onnx has"),
        ),
        (
            "g (double[B,3] x, float[B,3] z) => (float[B,3] y, float[B,3] w) { t = Cast<to=1>(x)  y = Add(t, z)  w = Sub(t, z) }",
            ("input x is FLOAT in", "a.onnx and DOUBLE in", "b.onnx"),
        ),
    ],
)
def test_models_with_other_inputs_or_outputs_are_told_apart(cli, tmp_path, text, words):
    save(tmp_path / "a.onnx", ADD)
    save(tmp_path / "b.onnx", text)
    expect_one_line(cli("check", "a.onnx", "b.onnx"), 5, *words)


def test_check_names_both_models_when_they_differ(cli, tmp_path):
    save(tmp_path / "a.onnx", ADD)
    save(tmp_path / "b.onnx", ADD.replace("Add(x, z)", "Sub(x, z)"))
    result = cli("check", "a.onnx", "b.onnx")
    assert result.returncode == 5
    assert result.stderr.strip().splitlines()[-1].startswith("onnxfuse: b.onnx differs from a.onnx: output 'y' is off by")
    assert result.stderr.strip().endswith("allowed 1e-05")


def test_models_are_compared_in_the_sizes_that_both_take(tmp_path):
    text = "g (int64[{shape}] input_ids, float[9,4] words) => (float[{shape},4] y) {{ y = Gather(words, input_ids) }}"
    anything = save(tmp_path / "a.onnx", text.format(shape="B,S"), words=(9, 4))
    fixed = save(tmp_path / "b.onnx", text.format(shape="2,5"), words=(9, 4))
    for pair in ((anything, fixed), (fixed, anything)):
        result = check(*pair, "exact")
        assert result.passed
        assert result.differences[0].compared == 2 * 5 * 4


INVERTED = """g (int64[B,S] input_ids, int64[B,S] attention_mask, float[50,8] words) => (float[B,S,8] y)
    <float low = {{-{low}}}, int64[1] second = {{1}}> {{ x = Gather(words, input_ids)  t = Transpose<perm=[0,2,1]>(x)  s = MatMul(x, t)
    m = Cast<to=1>(attention_mask)  k = Mul(m, low)  bias = Unsqueeze(k, second)  a = Add(s, bias)  p = Softmax<axis=-1>(a)  y = MatMul(p, x) }}"""


def test_a_mask_that_shuts_out_where_others_let_in(tmp_path):
    """With all ones, no token would take part: what is left of the scores beside the filler is nobody's law."""
    files = [save(tmp_path / f"{low}.onnx", INVERTED.format(low=low), words=(50, 8)) for low in (10000, 1000000)]
    result = check(*files, "reassociate")
    assert result.passed, result.failures
    profile = profile_of(onnx_file.load(files[0]))
    misread = expect(open_runner(files[0]), grid(profile))
    assert not parity.compare(misread, open_runner(files[1]), "reassociate").passed


def test_zeros_at_padding_are_wanted_where_asked(tmp_path):
    text = "g (float[B,S,2] x, int64[B,S] attention_mask) => (float[B,S,2] y) { m = Cast<to=1>(attention_mask) u = Unsqueeze(m, a) a = Constant<value=int64[1] {2}>() %s }"
    first = tmp_path / "a.onnx"
    for name, body in (("a", "y = Identity(x)"), ("b", "y = Mul(x, u)")):
        model = parse(text % body)
        model.graph.sort()
        onnx_file.save(model, tmp_path / f"{name}.onnx")
    assert not verdict.compare_files(first, tmp_path / "b.onnx", "exact").passed
    assert verdict.compare_files(first, tmp_path / "b.onnx", "exact", zeros=["y"]).passed
    assert not verdict.compare_files(first, first, "exact", zeros=["y"]).passed


def test_messages_do_not_name_hidden_files(tmp_path):
    """A model that fails while it is checked goes by the name that it would have had."""
    source = save(tmp_path / "model.onnx", "g (float[B,3] x) => (float[B,3] y) { y = Neg(x) }")
    from onnxfuse.io.atomic import replacing

    with pytest.raises(ModelError) as raised, replacing(tmp_path / "made.onnx") as staged:
        save(staged, "g (float[B,3] x) => (float[B,3] y) <int64[2] s = {7,7}> { r = Reshape(x, s)  y = Reshape(r, s) }")
        verdict.compare_files(source, staged, "exact")
    assert f"cannot run {tmp_path / 'made.onnx'} on x [1, 3]" in str(raised.value)
    assert ".onnxfuse-" not in str(raised.value)


# The verbs' own kinds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["optimize", "check"])
def test_a_weight_that_is_not_a_number_is_named(cli, tmp_path, verb):
    path = save(tmp_path / "m.onnx", "g (float[B,8] x, float[8,8] w) => (float[B,8] y) { y = MatMul(x, w) }", w=(8, 8))
    model = onnx_file.load(path)
    weights = model.graph.initializers["w"].const_value.numpy().copy()
    weights[3, 3] = np.nan
    model.graph.initializers["w"].const_value = ir.tensor(weights)
    onnx_file.save(model, path)
    result = cli(verb, path, *([path, "--kind", "exact"] if verb == "check" else []))
    expect_one_line(result, 3, "m.onnx: weight w holds NaN")


def test_a_reference_that_answers_nothing_finite_is_told(cli, tmp_path):
    path = save(tmp_path / "m.onnx", "g (float[B,8] x) => (float[B,8] y) { n = Exp(x)  m = Neg(n)  y = Log(m) }")
    expect_one_line(cli("optimize", path), 3, "computes from all random inputs NaN or infinity")


def test_rows_that_are_not_numbers_are_no_fault_of_the_model(cli, tmp_path):
    path = save(tmp_path / "m.onnx", "g (float[B,8] x) => (float[B,8] y) { y = Log(x) }")
    assert cli("optimize", path).returncode == 0


def nudge(monkeypatch, factor):
    """Make the optimizer multiply each Tanh by a factor, as a wrong rule would."""
    from onnxfuse import optimizer

    def before(op, x):
        return op.Tanh(x)

    def after(op, x):
        return op.Mul(op.Tanh(x), op.constant(np.asarray(factor, np.float32), "factor"))

    select = optimizer.select
    rule = Rule("nudge", before, lambda match: match.need(_reader(match) != "Mul", "once"), after)
    monkeypatch.setattr(
        optimizer, "select", lambda *given: replace(select(*given), lowerings=(Lowering("nudge", "by a factor", (rule,)),))
    )


def _reader(match):
    value = match.root.outputs[0]
    return next(iter(value.uses()))[0].op_type if value.uses() else ""


FLOAT = "g (float[B,4] x) => (float[B,4] y) { y = Tanh(x) }"
INT8 = """g (float[B,4] x) => (float[B,4] y) <int8[4,4] w = {9,-3,4,1,0,2,-7,5,3,3,1,-8,6,-2,0,1}, float scale = {0.01}>
    { q, s, z = DynamicQuantizeLinear(x)  p = MatMulInteger(q, w, z)  f = Cast<to=1>(p)  u = Mul(s, scale)  r = Mul(f, u)  y = Tanh(r) }"""


@pytest.mark.parametrize(
    ("text", "factor", "kind", "passes"),
    [
        (FLOAT, 1 + 4e-6, "reassociate", True),
        (FLOAT, 1 + 2e-5, "reassociate", False),
        (INT8, 1.01, "int8", True),
        (INT8, -1.0, "int8", False),
    ],
)
def test_optimize_holds_float_models_to_rounding_and_int8_to_a_code(tmp_path, monkeypatch, text, factor, kind, passes):
    nudge(monkeypatch, factor)
    plan = OptimizeConfig(save(tmp_path / "model.onnx", text), tmp_path / "o.onnx", verify="final", model_type="distilbert")
    if passes:
        parity_ = optimize(plan).parity
        assert parity_.kind == kind
        assert parity_.error == pytest.approx(factor - 1, rel=0.1)
    else:
        with pytest.raises(ParityError, match=r"optimizing changed the outputs: output 'y' .*; .*o\.onnx was not written"):
            optimize(plan)
        assert not plan.out.exists()


def nudged(source, path, factor):
    """The model with each output multiplied by a factor."""
    model = onnx.load(source)
    for value in list(model.graph.output):
        for node in model.graph.node:
            node.output[:] = [f"{name}.before" if name == value.name else name for name in node.output]
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(factor).reshape(()), f"{value.name}.factor"))
        model.graph.node.append(onnx.helper.make_node("Mul", [f"{value.name}.before", f"{value.name}.factor"], [value.name]))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("name", "factor", "passes"),
    [
        ("ONNX", 1 + 4e-6, True),
        ("ONNX", 1 + 2e-5, False),
        ("optimized", 1 + 4e-6, True),
        ("optimized", 1 + 2e-5, False),
        ("int8", 1.01, True),
        ("int8", -1.0, False),
    ],
)
def test_run_holds_each_model_to_its_own_row(bert_export, tmp_path, name, factor, passes):
    source = bert_export / "export" / "model.onnx"
    paths = {other: Path(shutil.copy(source, tmp_path / f"{other}.onnx")) for other in ("ONNX", "optimized", "int8")}
    nudged(source, paths[name], factor)
    config = json.loads((bert_export / "export" / "config.json").read_text())
    models = {other: Opened(path, config=config) for other, path in paths.items()}
    if passes:
        results = compare_all(open_runner(source), "PyTorch", models, None, silent)
        assert results[name].error == pytest.approx(factor - 1, rel=0.2)
    else:
        with pytest.raises(
            ParityError,
            match=rf"{name}\.onnx differs from PyTorch: output 'logits' .*; "
            rf"ONNX\.onnx, optimized\.onnx, int8\.onnx are in {tmp_path}$",
        ):
            compare_all(open_runner(source), "PyTorch", models, None, silent)


def test_export_holds_the_graph_to_rounding(bert_export, tmp_path, monkeypatch):
    from onnxfuse import exporters

    write = exporters.export
    for factor, passes in ((1 + 4e-6, True), (1 + 2e-5, False)):

        def write_nudged(checkpoint, path, **options):
            write(checkpoint, path, **options)
            nudged(path, path, factor)
            return onnx_file.load(path)

        monkeypatch.setattr(exporters, "export", write_nudged)
        plan = ExportConfig(str(bert_export / "checkpoint"), tmp_path / str(passes), exporter="torchscript")
        if passes:
            assert export(plan).parity.passed
        else:
            with pytest.raises(
                ParityError, match=r"the export differs from PyTorch: .* allowed 1e-05; .*model\.onnx was not written"
            ):
                export(plan)
            assert not (plan.out / "model.onnx").exists()


@pytest.mark.parametrize(
    ("kind", "passes", "fails"), [("fp32", 4e-6, 2e-5), ("fp16", 4e-3, 2e-2), ("bf16", 0.01, -2), ("int8", 0.01, -2)]
)
def test_contests_hold_each_precision_to_its_own_row(kind, passes, fails):
    def scaled(by):
        return lambda feeds: {"y": feeds["x"] * np.float32(1 + by)}

    entries = [
        compare.Candidate("first", "fp32", scaled(0)),
        compare.Candidate("near", kind, scaled(passes)),
        compare.Candidate("far", kind, scaled(fails)),
    ]
    found = compare.compare_outputs(entries, [{"x": X}], {})
    assert found["near"].passed
    assert not found["far"].passed

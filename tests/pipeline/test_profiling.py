"""``profile``: every microsecond of a kernel stands in both views, in the rows where it belongs, and nothing stays behind."""

import json
import re
import shutil
import tempfile
from collections import Counter

import onnx
import pytest

import onnxfuse
from onnxfuse.cli import profiles
from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig
from onnxfuse.errors import ModelError, UsageError
from onnxfuse.io import folders, onnx_file
from onnxfuse.measure import benchmark, machine
from onnxfuse.pipeline import profiling
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.profiling import Part, Profiled, Profiling, opened_as
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.runtime import Settings
from tests.cli import documented
from tests.cli.test_cli import expect_one_line
from tests.conftest import fill, parse, small_model
from tests.marks import OTHERS

PLAN = BenchmarkConfig(batch=2, length=8, threads=1, rounds=3)
LAYERED = ["embeddings", "layer 0", "layer 1", "head"]


@pytest.fixture(scope="module")
def folder(bert_export, tmp_path_factory):
    """A folder with a two-layer BERT classifier: as exported, optimized with padding removed and kept, in int8, and static."""
    at = tmp_path_factory.mktemp("models")
    for name in ("model.onnx", "config.json"):
        shutil.copy(bert_export / "export" / name, at / name)
    optimize(OptimizeConfig(at / "model.onnx", at / folders.OPTIMIZED))
    optimize(OptimizeConfig(at / "model.onnx", at / "padded.onnx", unpad=False))
    optimize(OptimizeConfig(at / "model.onnx", at / "fixed.onnx", batch=2, length=16))
    quantize(QuantizeConfig(at / folders.OPTIMIZED, at / folders.QUANTIZED))
    return at


@pytest.fixture
def scratched(tmp_path, monkeypatch):
    """An empty current folder, and an empty one for temporary files."""
    for name in ("here", "temporary"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path


def left(scratched) -> list[str]:
    return [str(path) for path in scratched.rglob("*") if path.is_file() or path.name.startswith(".onnxfuse")]


def require_whole(model: Profiled) -> None:
    """Both views hold all kernels, and all of these."""
    for parts in (model.operators, model.layers):
        assert sum(part.ms for part in parts) == pytest.approx(model.kernels, abs=1e-4)
        assert sum(part.nodes for part in parts) == model.nodes
        assert sum(part.share for part in parts) == pytest.approx(1)
        assert len({part.name for part in parts}) == len(parts)
        for part in parts:
            assert part.share == pytest.approx(part.ms / model.kernels, abs=1e-6)
    assert [part.ms for part in model.operators] == sorted((part.ms for part in model.operators), reverse=True)
    assert model.operators[0].ms > 0
    assert 0 < model.kernels <= model.call
    assert model.call == pytest.approx(model.kernels + model.outside, abs=1e-4)


@OTHERS
def test_a_fused_model_by_operator_and_by_layer(folder, scratched):
    (model,) = profiling.profile(folder / "padded.onnx", None, PLAN).models
    require_whole(model)
    counts = {part.name: part.nodes for part in model.operators}
    graph = Counter(node.op_type for node in onnx.load(folder / "padded.onnx").graph.node)
    assert (counts["Attention"], counts["LayerNormalization"]) == (graph["Attention"], graph["LayerNormalization"]) == (2, 5)
    fused = sum(count for name, count in counts.items() if "MatMul" in name or "Gemm" in name)
    assert fused == graph["MatMul"] + graph["Gemm"]  # some become another operator, none is lost
    assert [part.name for part in model.layers] == LAYERED
    assert all(8 < part.nodes < 20 for part in model.layers[1:3])
    assert left(scratched) == []


@OTHERS
@pytest.mark.parametrize("name", ["model.onnx", folders.OPTIMIZED, folders.QUANTIZED, "fixed.onnx"])
def test_every_form_of_a_model(folder, name):
    batch, length = (0, 0) if name == "fixed.onnx" else (2, 8)
    outcome = onnxfuse.profile(folder / name, batch=batch, length=length, threads=1, real=0.5, rounds=2)
    (model,) = outcome.models
    require_whole(model)
    assert [part.name for part in model.layers] == LAYERED
    assert outcome.shape == ("batch 2, length 16" if name == "fixed.onnx" else "batch 2, length 8")
    assert all(part.nodes > 8 for part in model.layers[1:3])  # the last one may compute the first token alone
    documented.require("profile", {"schema": 1} | json.loads(json.dumps(outcome.to_json())))


@OTHERS
def test_images(tmp_path):
    made = export(
        ExportConfig("vit", tmp_path, exporter="torchscript"),
        source=small_model("vit", "AutoModelForImageClassification", layers=2),
    )
    step = optimize(OptimizeConfig(made.path, tmp_path / folders.OPTIMIZED))
    for path in (made.path, step.path):
        (model,) = profiling.profile(path, None, BenchmarkConfig(batch=2, threads=1, rounds=2)).models
        require_whole(model)
        assert [part.name for part in model.layers] == LAYERED


def test_any_file_without_config_names_or_attention(tmp_path):
    model = parse(
        "g (float[B,8] x, float[8,8] w, float[8,8] v) => (float[B,8] y) { a = MatMul(x, w) b = Tanh(a) c = MatMul(b, v) y = Tanh(c) }"
    )
    onnx_file.save(fill(model, w=(8, 8), v=(8, 8)), tmp_path / "any.onnx")
    proto = onnx.load(tmp_path / "any.onnx")
    for node in proto.graph.node:
        node.name = ""
    onnx.save(proto, tmp_path / "any.onnx")
    (model,) = profiling.profile(tmp_path / "any.onnx", None, BenchmarkConfig(batch=4, rounds=2)).models
    assert {part.name: part.nodes for part in model.operators} == {"MatMul": 2, "Tanh": 2}
    assert [(part.name, part.nodes) for part in model.layers] == [("other", 4)]
    assert model.kernels == pytest.approx(sum(part.ms for part in model.layers), abs=1e-4)


def test_what_a_body_takes_counts_once(tmp_path):
    text = """g (float[64,64] a, int64[1] n) => (float[64,64] out) {
        count = Squeeze(n) go = Constant<value = bool[1] {1}>() yes = Squeeze(go)
        out = Loop(count, yes, a) <body = b (int64 i, bool c, float[64,64] v) => (bool d, float[64,64] w) {
            d = Identity(c) p = MatMul(v, a) w = Tanh(p) }> }"""
    onnx_file.save(parse(text), tmp_path / "loop.onnx")
    (model,) = profiling.profile(tmp_path / "loop.onnx", None, BenchmarkConfig(batch=1, threads=1, rounds=2)).models
    counts = {part.name: part.nodes for part in model.operators}
    assert counts["Loop"] == 1
    assert model.kernels <= model.call
    assert sum(part.ms for part in model.layers) == pytest.approx(model.kernels, abs=1e-4)


def test_medians_are_of_the_rounds_and_warm_up_does_not_count(folder, monkeypatch):
    seen = []
    judged = profiling._profiled
    monkeypatch.setattr(profiling, "_profiled", lambda opening, calls, graph: seen.append(calls) or judged(opening, calls, graph))
    opened = []
    traced = profiling.Traced
    monkeypatch.setattr(profiling, "Traced", lambda *given: opened.append(given[0].name) or traced(*given))
    profiling.profile(folder, folder / "model.onnx", PLAN)
    assert [len(calls) for calls in seen] == [3, 3]
    assert opened == [folders.QUANTIZED, "model.onnx"]
    monkeypatch.setattr(profiling, "EVENTS", 1)  # ONNX Runtime notes no more than a million in a session
    profiling.profile(folder, None, PLAN)
    assert len(seen[-1]) == 3
    assert opened[2:] == [folders.QUANTIZED] * 3


def test_a_slow_call_moves_no_median():
    kernel = profiling.Kernel("r", "Relu", 0, 10)
    calls = [
        profiling.Call(15, (kernel,)),
        profiling.Call(9999, (profiling.Kernel("r", "Relu", 0, 9000),)),
        profiling.Call(14, (kernel,)),
    ]
    opening = profiling._Opening(folders.EXPORTS, Settings(), None)
    model = profiling._profiled(opening, calls, parse("g (float[2] x) => (float[2] y) { y = Relu(x) }").graph)
    assert (model.kernels, model.outside, model.call) == (0.01, 0.005, 0.015)


def test_what_runs_inside_is_of_its_own_operator_and_of_the_layer_around_it():
    inside = tuple(profiling.Kernel("m", "MatMul", at, 3) for at in (1, 5))
    call = profiling.Call(20, (profiling.Kernel("", "Loop", 0, 10, inside), profiling.Kernel("", "Relu", 11, 1)))
    graph = parse("g (float[2] x, int64 n, bool c) => (float[2] y) { z = Loop(n, c, x) y = Relu(z) }").graph
    model = profiling._profiled(profiling._Opening(folders.EXPORTS, Settings(), None), [call], graph)
    assert [(part.name, part.nodes, part.ms) for part in model.operators] == [
        ("MatMul", 1, 0.006),
        ("Loop", 1, 0.004),
        ("Relu", 1, 0.001),
    ]
    assert [(part.name, part.nodes, part.ms) for part in model.layers] == [("other", 3, 0.011)]
    assert model.outside == 0.009


def test_two_models_take_turns_on_the_same_sizes(folder, monkeypatch):
    order = []
    called = profiling.Traced.__call__
    monkeypatch.setattr(
        profiling.Traced, "__call__", lambda self, feeds: order.append((self.path.name, feeds)) or called(self, feeds)
    )
    outcome = profiling.profile(folder / "model.onnx", folder / "fixed.onnx", BenchmarkConfig(threads=1, rounds=2))
    names = [name for name, _ in order]
    turn = ["model.onnx"] * 2 + ["fixed.onnx"] * 2
    rounds = benchmark.WARM_UP + 2
    assert names == [name for at in range(rounds) for name in (turn if at % 2 == 0 else turn[::-1])]
    assert {feeds["input_ids"].shape for _, feeds in order} == {(2, 16)}
    assert outcome.shape == "batch 2, length 16"
    for model in outcome.models:
        require_whole(model)


def test_two_models_that_take_other_sizes_alone(folder, tmp_path):
    optimize(OptimizeConfig(folder / "model.onnx", tmp_path / "other.onnx", batch=2, length=8))
    with pytest.raises(UsageError, match=r"fixed.onnx takes 16 tokens alone, .*other.onnx takes 8 tokens alone; profile each by"):
        profiling.profile(folder / "fixed.onnx", tmp_path / "other.onnx", BenchmarkConfig())


def test_the_file_and_its_options_are_those_of_load(folder, tmp_path):
    path, settings = opened_as(folder)
    loaded = onnxfuse.load(folder)
    assert (path, settings) == (loaded.path, loaded.settings) == (folder / folders.QUANTIZED, settings)
    assert settings.denormals_as_zero
    assert opened_as(folder, 2)[1].threads == 2
    proto = onnx.load(folder / folders.OPTIMIZED)
    for pair in proto.metadata_props:
        if pair.key == "onnxfuse":
            known = json.loads(pair.value)
            known["session"] |= {"runtime": "openvino", "threads": 3, "spinning": False}
            pair.value = json.dumps(known)
    onnx.save(proto, tmp_path / folders.OPTIMIZED)
    assert opened_as(tmp_path) == (tmp_path / folders.OPTIMIZED, Settings("ort", 3, True, False))


@pytest.mark.parametrize(("runtime", "file"), [("ort", folders.OPTIMIZED), ("openvino", folders.QUANTIZED)])
def test_what_run_found_to_be_the_fastest_is_opened(folder, tmp_path, runtime, file):
    for name in (folders.OPTIMIZED, folders.QUANTIZED):
        shutil.copy(folder / name, tmp_path / name)
    settings = Settings(runtime, 1, spinning=False)
    known = profiling.fastest.Fastest(
        folders.OPTIMIZED, folders.fingerprint(tmp_path / folders.OPTIMIZED), settings, machine.kind()
    )
    (tmp_path / folders.RECORD).write_text(
        json.dumps({profiling.fastest.STEP: {profiling.fastest.KEY: folders.plain(known.to_json())}})
    )
    path, found = opened_as(tmp_path)
    assert path == tmp_path / file
    assert found.runtime == "ort"
    assert (found == settings) == (runtime == "ort")


@pytest.mark.parametrize("fault", [KeyboardInterrupt, ModelError])
def test_nothing_stays_behind_whatever_happens(folder, scratched, monkeypatch, fault):
    def stop(*given):
        raise fault

    monkeypatch.setattr(profiling, "_rounds", stop)
    with pytest.raises(fault):
        profiling.profile(folder, folder / "model.onnx", PLAN)
    assert left(scratched) == []


def sample() -> Profiling:
    settings = Settings(threads=2)
    one = Profiled(
        folders.EXPORTS / "a.onnx",
        settings,
        (
            Part("MatMul", 3, 12.0, 0.8),
            Part("Softmax", 2, 2.88, 0.192),
            Part("Cast", 2, 0.09, 0.006),
            Part("Add", 1, 0.03, 0.002),
        ),
        (Part("embeddings", 1, 3.0, 0.2), Part("layer 0", 7, 12.0, 0.8)),
        1.0,
    )
    two = Profiled(
        folders.EXPORTS / "b.onnx",
        settings,
        (Part("com.microsoft.QGemm", 3, 4.0, 0.8), Part("Softmax", 2, 0.985, 0.197), Part("Add", 1, 0.015, 0.003)),
        (Part("layer 0", 5, 4.0, 0.8), Part("head", 1, 1.0, 0.2)),
        0.5,
    )
    return Profiling((one, two), "batch 1", 7)


def test_the_table_of_two():
    operators, layered = profiles.profile_tables(sample(), "t")
    assert operators.headers == ("operator", "nodes A", "ms A", "share A", "nodes B", "ms B", "share B", "ms B - A")
    assert operators.rows == [
        ("MatMul", "3", "12.00", "80.0%", "—", "—", "—", "-12.00"),
        ("com.microsoft.QGemm", "—", "—", "—", "3", "4.00", "80.0%", "+4.00"),
        ("Softmax", "2", "2.88", "19.2%", "2", "0.98", "19.7%", "-1.90"),
        ("2 others", "3", "0.12", "0.8%", "1", "0.01", "0.3%", "-0.10"),
        ("all kernels", "8", "15.00", "100.0%", "6", "5.00", "100.0%", "-10.00"),
        ("outside of kernels", "", "1.00", "", "", "0.50", "", "-0.50"),
        ("one call", "", "16.00", "", "", "5.50", "", "-10.50"),
    ]
    assert [row[0] for row in layered.rows] == ["embeddings", "layer 0", "head", "all kernels"]
    assert layered.rows[0] == ("embeddings", "1", "3.00", "20.0%", "—", "—", "—", "-3.00")
    assert layered.rows[-1] == operators.rows[-3]


def test_the_table_of_one_and_its_titles():
    whole = sample()
    alone = Profiling(whole.models[1:], "batch 1", 7)
    operators, layered = profiles.profile_tables(alone, "t")
    assert operators.headers == ("operator", "nodes", "ms", "share")
    assert operators.rows[2] == ("Add", "1", "0.015", "0.3%")  # one alone is not called others
    assert layered.rows[0] == ("layer 0", "5", "4.000", "80.0%")
    assert profiles.titles(alone) == ["onnx/b.onnx, batch 1, 2 threads, 7 rounds"]
    assert profiles.titles(whole) == ["A: onnx/a.onnx", "B: onnx/b.onnx", "batch 1, 2 threads, 7 rounds"]


def test_the_plot_has_every_row_and_value(tmp_path):
    profiles.profile_plot(sample(), tmp_path / "p.svg")
    seen = [text.strip() for text in re.findall(r"<!-- (.*?) -->", (tmp_path / "p.svg").read_text(), re.DOTALL)]
    rows = [
        text for text in seen if text in ("MatMul", "com.microsoft.QGemm", "Softmax", "2 others", "embeddings", "layer 0", "head")
    ]
    assert rows == ["MatMul", "com.microsoft.QGemm", "Softmax", "2 others", "embeddings", "layer 0", "head"]
    assert {"12.0  (80.0%)", "4.00  (80.0%)", "2.88  (19.2%)", "0.0150  (0.3%)"} <= set(seen)
    assert seen.count("—") == 4
    assert any("A: onnx/a.onnx" in text for text in seen)
    assert any("one call 16 ms, 1 outside of kernels" in text for text in seen)


def test_the_command(cli, folder, scratched):
    given = ("profile", folder / "model.onnx", "--against", folder / "padded.onnx", "--length", 8, "--rounds", 1, "--threads", 1)
    result = cli(*given, "--plot", "time.svg", at=scratched / "here")
    assert result.returncode == 0, result.stderr
    for text in ("A: ", "B: ", "batch 1, length 8, 1 threads, 1 rounds", "all kernels", "one call", "layer 1", "read the shares"):
        assert text in result.stdout
    assert [path.name for path in (scratched / "here").iterdir()] == ["time.svg"]
    assert str(folder) not in (scratched / "here" / "time.svg").read_text()
    (scratched / "here" / "time.svg").unlink()
    assert left(scratched) == []


def test_what_cannot_be_profiled_is_told_in_one_line(cli, folder, tmp_path):
    for name in ("m.xml", "m.tflite"):
        (tmp_path / name).write_bytes(b"whatever")
        expect_one_line(cli("profile", name), 2, f"{name} is no .onnx file", "give the .onnx file of that model")
        expect_one_line(cli("profile", folder, "--against", name), 2, f"{name} is no .onnx file")
    (tmp_path / "text.onnx").write_text("not a model\n" * 100)
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.svg").write_text("mine")
    expect_one_line(cli("profile", "text.onnx"), 3, "text.onnx is not a whole ONNX model")
    expect_one_line(cli("profile", "nowhere"), 2, "nowhere is not there")
    expect_one_line(cli("profile", folder, "--against", "empty"), 2, "empty holds no model_quantized.onnx")
    expect_one_line(cli("profile"), 2, "the current folder and onnx/ hold no")
    expect_one_line(cli("profile", folder, "--plot", "p.gif"), 2, "wanted a file ending in .svg, .png, .pdf")
    expect_one_line(cli("profile", folder, "--plot", "mine.svg"), 2, "mine.svg", "--overwrite")
    expect_one_line(cli("profile", folder, "--length", 65), 2, "the model has positions for 64 tokens")
    expect_one_line(cli("profile", folder / "fixed.onnx", "--batch", 3), 2, "the model takes 2 alone")
    assert (tmp_path / "mine.svg").read_text() == "mine"


def test_a_model_that_runs_no_node(cli, tmp_path):
    onnx.save(
        onnx.parser.parse_model('<ir_version: 10, opset_import: ["": 21]> g (float[N] x) => (float[N] x) { }'),
        tmp_path / "m.onnx",
    )
    expect_one_line(cli("profile", tmp_path / "m.onnx"), 2, "runs no node: its outputs are inputs or constants")

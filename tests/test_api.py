"""What ``import onnxfuse`` shows: the verbs as functions, on paths and on models in memory."""

import subprocess
import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import onnxfuse
from onnxfuse import errors
from onnxfuse.errors import ModelError, UsageError
from tests.conftest import fill, parse, small_model
from tests.marks import OTHERS

TEXT = """g (float[B,S,128] x, float[128,128] w) => (float[B,S,128] y)
    <float one = {1}, float half = {0.5}, float root = {1.4142135}>
    { m = MatMul(x, w)  d = Div(m, root)  e = Erf(d)  p = Add(e, one)  h = Mul(m, p)  y = Mul(h, half) }"""


@pytest.fixture
def graph():
    return fill(parse(TEXT, opset=20), w=(128, 128))


@pytest.fixture
def path(graph, tmp_path):
    ir.save(graph, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def operators(model):
    return [node.op_type for node in (model.graph.node if isinstance(model, onnx.ModelProto) else model.graph)]


def test_every_public_name_is_there_and_every_error_among_them():
    assert all(getattr(onnxfuse, name) is not None for name in onnxfuse.__all__)
    assert {name for name, kind in vars(errors).items() if isinstance(kind, type) and kind.__module__ == errors.__name__} <= set(
        onnxfuse.__all__
    )
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        onnxfuse.nonsense  # noqa: B018


def test_verbs_stay_functions_when_everything_is_imported():
    code = "import onnxfuse, onnxfuse.api, onnxfuse.cli.app; from onnxfuse.pipeline import run, quantize, evaluate\n"
    code += "assert all(callable(getattr(onnxfuse, name)) for name in onnxfuse.__all__), onnxfuse.quantize"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, stdin=subprocess.DEVNULL)


def test_a_path_gives_a_result_that_is_a_path(path):
    made = onnxfuse.optimize(path, model_type="bert", only=["gelu"])
    assert made.path == path.with_name("model_optimized.onnx")
    assert (made.fused["gelu"], made.parity.passed) == (1, True)
    assert onnxfuse.check(path, made).passed
    small = onnxfuse.quantize(made, calibration="none", smooth="off")
    assert small.description.matmuls == 1
    assert small.size < made.size
    model = onnxfuse.load(small)
    wanted = model(x=np.ones((1, 2, 128), np.float32))["y"]
    assert wanted.shape == (1, 2, 128)
    for given in (model(np.ones((1, 2, 128))), model([[[1] * 128] * 2]), model(x=np.ones((1, 2, 128)), token_type_ids=[[0]])):
        np.testing.assert_array_equal(given["y"], wanted)
    with pytest.raises(UsageError, match="the feeds are a list, wanted a dict of arrays by the inputs' names"):
        model.run([1.0])
    with pytest.raises(UsageError, match="the model has no input y; it takes x"):
        model(y=1)


@OTHERS
@pytest.mark.parametrize("kind", ["proto", "ir"])
def test_a_model_in_memory_gives_one_of_its_kind_and_stays_as_it_is(graph, kind):
    model = ir.to_proto(graph) if kind == "proto" else graph
    before = operators(model)
    made = onnxfuse.optimize(model, model_type="bert")
    assert type(made) is type(model)
    assert "Gelu" in operators(made)
    assert operators(model) == before
    small = onnxfuse.quantize(made, calibration="none")
    assert type(small) is type(model)
    assert "MatMulInteger" in operators(small) or "DynamicQuantizeMatMul" in operators(small)
    weights = small.graph.initializer if kind == "proto" else small.graph.initializers.values()
    assert len(weights) > 0
    if kind == "ir":
        assert all(value.const_value.numpy() is not None for value in weights)


def test_what_is_no_model_is_refused_in_one_line(graph, path):
    with pytest.raises(UsageError, match=r"^the model is a dict, wanted a path, an onnx\.ModelProto or an onnx_ir\.Model$"):
        onnxfuse.optimize({})
    with pytest.raises(UsageError, match="output is for files"):
        onnxfuse.optimize(graph, path.with_name("other.onnx"))
    with pytest.raises(UsageError, match="give output, a folder"):
        onnxfuse.export(object())
    with pytest.raises(UsageError, match="format 'gguf': wanted one of onnx, tflite"):
        onnxfuse.export("bert", format="gguf")


def test_weights_that_are_elsewhere_and_errors_of_a_model_in_memory_name_no_file(graph, tmp_path):
    proto = ir.to_proto(graph)
    onnx.save(proto, tmp_path / "split.onnx", save_as_external_data=True, size_threshold=0)
    apart = onnx.load(tmp_path / "split.onnx", load_external_data=False)
    with pytest.raises(
        ModelError, match=r"^weight w of the model lies in another file; give the model's path, or load it whole$"
    ):
        onnxfuse.optimize(apart)
    with pytest.raises(ModelError) as raised:
        onnxfuse.optimize(graph, model_type="nonsense")
    assert "/" not in str(raised.value)


def test_weights_of_any_size_may_lie_in_another_file(graph, tmp_path):
    """Those of an onnx_ir.Model are read from there, and what comes back holds them itself."""
    ir.save(graph, tmp_path / "model.onnx", external_data="weights.bin", size_threshold_bytes=0)
    made = onnxfuse.optimize(ir.load(tmp_path / "model.onnx"), model_type="bert")
    (tmp_path / "weights.bin").unlink()
    assert all(value.const_value.numpy().size for value in made.graph.initializers.values())


def test_paths_may_be_texts_and_lists_may_not(path):
    np.savez(path.with_name("rows.npz"), x=np.random.default_rng(0).standard_normal((8, 3, 128)).astype(np.float32))
    data = str(path.with_name("rows.npz"))
    made = onnxfuse.quantize(str(path), calibration=data, data=data, min_cosine=0.9)
    assert made.gate.kept == ()
    onnxfuse.optimize(str(path), model_type="bert", dump=str(path.with_name("dump")))
    assert any(path.with_name("dump").iterdir())
    with pytest.raises(UsageError, match=r"^only is the text 'gelu', wanted a list of names: \['gelu'\]$"):
        onnxfuse.optimize(path, only="gelu")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # torch.compile's own
def test_a_model_trains_on_after_its_export(tmp_path):
    """Also inside torch.compile; one part of it was frozen."""
    model = small_model("bert", "AutoModel", layers=1).train()
    model.encoder.layer[0].attention.eval()
    before = [part.training for part in model.modules()]
    made = onnxfuse.export(torch.compile(model), tmp_path / "out")
    assert [part.training for part in model.modules()] == before
    assert made.parity.passed


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: onnxfuse.load(5), "the model is a int, wanted a path"),
        (lambda: onnxfuse.load(""), "the model is an empty text, wanted a path"),
        (lambda: onnxfuse.optimize("out", ""), "output is an empty text, wanted a path"),
        (lambda: onnxfuse.optimize("out", "a\0b"), r"output is 'a\\x00b', and no path has a null character"),
        (lambda: onnxfuse.export("out", "a\0b"), r"output is 'a\\x00b', and no path has a null character"),
        (lambda: onnxfuse.package("a\0b", "optimum"), r"the model is 'a\\x00b', and no path has a null character"),
        (lambda: onnxfuse.load(b"out"), "the model is a bytes, wanted a path"),
        (lambda: onnxfuse.check(None, "out"), "the model is a NoneType, wanted a path"),
        (lambda: onnxfuse.evaluate([], "data"), "no models are given; give the path of one, or a list of paths"),
        (lambda: onnxfuse.evaluate(onnx.ModelProto(), "data"), "the model is a ModelProto, wanted a path"),
        (lambda: onnxfuse.benchmark("out", rounds=0), "rounds is 0, wanted 1 to 1000000"),
        (lambda: onnxfuse.benchmark("out", runtimes="ort"), r"runtimes is the text 'ort', wanted a list of names: \['ort'\]"),
        (
            lambda: onnxfuse.benchmark("out", against="torch,ibert"),
            r"against is the text 'torch,ibert', wanted a list of names: \['torch', 'ibert'\]",
        ),
        (lambda: onnxfuse.benchmark("out", against=5), r"against is 5, wanted a list of names: \['NAME'\]"),
        (lambda: onnxfuse.benchmark("out", against=[5]), r"against is \[5\], wanted a list of names: .*"),
        (lambda: onnxfuse.evaluate("out", "data", ablate="no"), "ablate is 'no', wanted True or False"),
        (
            lambda: onnxfuse.evaluate("out", "data", target="cpu"),
            "target 'cpu' says whose rewrites ablate judges; add ablate=True, or leave it out",
        ),
        (lambda: onnxfuse.benchmark("out", runtimes=[]), "no runtimes are given; leave them out for ONNX Runtime"),
        (lambda: onnxfuse.benchmark("out", progress=None), "progress is a NoneType, wanted a function: see onnxfuse.io.progress"),
        (lambda: onnxfuse.export("bert", "out", progress=1), "progress is a int, wanted a function: see onnxfuse.io.progress"),
        (lambda: onnxfuse.export(""), "the source is an empty text, wanted a hub id, a checkpoint's folder or a loaded model"),
        (lambda: onnxfuse.export("bert", "out", opste=17), "export has no option opste; it has task, framework, .*"),
        (lambda: onnxfuse.optimize("out", targt="cpu"), "optimize has no option targt; it has target, .*"),
        (lambda: onnxfuse.quantize("out", statc=True), "quantize has no option statc; it has static, .*"),
        (lambda: onnxfuse.profile(5), "the model is a int, wanted a path"),
        (lambda: onnxfuse.profile("out", ""), "against is an empty text, wanted a path"),
        (lambda: onnxfuse.profile("out", rounds=0), "rounds is 0, wanted 1 to 1000000"),
        (lambda: onnxfuse.profile("out", progress=None), "progress is a NoneType, wanted a function: see onnxfuse.io.progress"),
        (lambda: onnxfuse.load("out", threads="2"), "threads is '2', wanted a whole number: 0 leaves the choice to the runtime"),
        (lambda: onnxfuse.load("out", threads=10**6), "threads is 1000000, wanted 0 to 1024"),
        (lambda: onnxfuse.benchmark("out", threads=1025), "threads is 1025, wanted 0 to 1024"),
        (lambda: onnxfuse.load("out", runtime=5), "runtime is 5, wanted a name"),
        (lambda: onnxfuse.quantize("out", max_drop="0.5%"), "max_drop is '0.5%', wanted a number or None"),
    ],
)
def test_what_is_no_path_or_no_option_is_refused_in_one_line(call, words):
    with pytest.raises(UsageError, match=f"^{words}$"):
        call()


def test_feeds_are_called_by_texts(path):
    model = onnxfuse.load(path)
    with pytest.raises(UsageError, match=r"^the feeds have 1 as a name, wanted those of the inputs: "):
        model.run({1: [[1.0]]})

"""What verbs return, with names and numbers as long as real ones get; `make check` holds their fields against the real ones."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from onnxfuse.config import BenchmarkConfig
from onnxfuse.evaluation.quality import Quality
from onnxfuse.io import folders
from onnxfuse.measure.benchmark import Ratio, Timing, summarize
from onnxfuse.measure.fastest import Fastest
from onnxfuse.pipeline import versions
from onnxfuse.pipeline.ablation import Result
from onnxfuse.pipeline.compare import Candidate, Comparison, Row
from onnxfuse.pipeline.doctor import Health, Speed
from onnxfuse.pipeline.evaluate import Evaluated, Evaluation
from onnxfuse.pipeline.forms import Form, Others
from onnxfuse.pipeline.profiling import Part, Profiled, Profiling
from onnxfuse.pipeline.run import Run
from onnxfuse.quantization.gate import Candidate as Kept
from onnxfuse.quantization.gate import TradeOff
from onnxfuse.runtime import Settings
from onnxfuse.scoring.metrics import Metric
from onnxfuse.verify.difference import Difference
from onnxfuse.verify.parity import Parity

FOLDER = "/home/someone/projects/search/onnx/sentence-transformers/paraphrase-multilingual-mpnet-base-v2"
NAMES = [f"{FOLDER}/{name}" for name in ("model.onnx", "model_optimized.onnx", "model_quantized.onnx")]
SHORT = ["onnx/docs-bert/model.onnx", "onnx/docs-bert/model_optimized.onnx", "transformers-int8"]


def timing(scale: float) -> Timing:
    return summarize([scale * (1 + at / 50) for at in range(20)])


def parity(kind: str = "int8", passed: bool = True, real: str = "sentences of Python's own documentation") -> Parity:
    seen = Difference("last_hidden_state", 1.2e-2, 0.1, 0.99876, 0.987, 0.5, "batch 3, length 512", 1234567, True, False, 77)
    failures = () if passed else ("last_hidden_state differs by 1.2e-02",)
    return Parity((seen,), 12, kind, failures, real)


def comparison(names: list[str]) -> Comparison:
    rows = {}
    for at, name in enumerate(names):
        entry = Candidate(name, "int8", lambda feeds: {}, unjudged="its calibration data are gone" if at == 1 else "")
        rows[name] = Row(entry, timing(0.12345 / (at + 1)), None if at < 2 else parity(passed=False), 12345678901)
    return Comparison(rows, {"openvino-bf16": "this CPU has no bfloat16"}, "batch 128, length 512")


def evaluated(names: list[str]) -> Evaluation:
    figures = {name: Metric(0.91234, 0.88765, 0.93456) for name in ("accuracy", "f1", "f1_macro", "matthews")}
    rows = {
        name: Evaluated(figures, 0.998765, 0.98765, 800, 0.5 if at else None, 12.5, timing(0.12345 / (at + 1)), 1112345678, 128)
        for at, name in enumerate(names)
    }
    return Evaluation(rows, {"torch-compile": "no compiler is there"})


def ablated() -> list[Result]:
    names = ("none", "normal form", "attention-on-heads-decomposed alone", "all but skip-layer-normalization, bias, gelu", "all")
    return [Result(name, 12345, 1234, 1.2e-6, timing(0.12345), Ratio(1.234, 1.111, 1.345)) for name in names]


def profiled(names: list[str]) -> Profiling:
    """Of two models, one with an operator that the other lacks."""
    long, small = Part("com.microsoft.DynamicQuantizeMatMul", 1234, 1234.5, 0.9), Part("Softmax", 24, 100.0, 0.0729)
    first = (long, small, Part("Cast", 1, 0.5, 0.0004), Part("Add", 1, 0.4, 0.0003))
    layers = tuple(Part(name, 333, 400.0, 0.25) for name in ("embeddings", "layer 0", "layer 1", "head"))
    models = [Profiled(Path(name), Settings(), first[at:], layers[at:], 12.3) for at, name in enumerate(names[:2])]
    return Profiling(tuple(models), "batch 128, length 512", 20)


def trade_off() -> TradeOff:
    quality = Quality(0.998765, 0.98765, 0.91234, 0.9123, 800)
    kept = tuple(f"layer {at}: attention output" for at in range(12))
    return TradeOff(kept, (Kept((), quality), Kept(kept, quality, 1234.567)), dict.fromkeys(kept, 0.1))


def ran(folder: str) -> Run:
    """What ``run`` returns; of its steps only what a table reads."""
    step: dict[str, Any] = {name: SimpleNamespace(path=Path(folder, name), size=1112345678) for name in ("a", "b", "c")}
    counts = {"attention": 24, "gelu": 24, "layer_norm": 49, "qkv": 24}
    step["b"].fused, step["b"].expected = counts, counts
    form = Form(Path(folder, folders.OPTIMIZED), "fp32", Settings("openvino-bf16"), "int8", lambda feeds: {})
    step["b"].path = form.path
    models = ("ONNX", "optimized", form.name)
    parities = {name: parity("reassociate", real="") for name in models}
    timings = {name: timing(1.2345) for name in ("TensorFlow", *models)}
    others = Others((form,), {}, ("static int8 in OpenVINO is too far from the original: cosine 0.91, wanted 0.98",))
    fastest = Fastest(folders.OPTIMIZED, "", form.settings, ("avx2",), Ratio(12.345, 10.1, 14.2))
    why = "nothing is worth quantizing"
    return Run(
        export=step["a"],
        optimize=step["b"],
        quantize=None,
        parity=parities,
        timings=timings,
        plan=BenchmarkConfig(),
        framework="TensorFlow",
        unquantized=why,
        half=None,
        static=None,
        unstatic="nothing is int8",
        elsewhere=None,
        others=others,
        fastest=fastest,
    )


def health() -> Health:
    packages = tuple(
        versions.Package(name, "2026.11.19.dev20261119+cpu", ">=2026.4.1,<2027", state)
        for name, state in (
            ("onnxruntime", "tried"),
            ("sentence-transformers", "outside"),
            ("numpy", "untried"),
            ("rich", "oldest"),
        )
    )
    lacking = (versions.Missing("tf", "export of TensorFlow models", ("tensorflow", "keras-hub")),)
    speeds = (Speed("int8", "ort", Ratio(4.9, 3.2, 8.3)), Speed("bf16", "openvino-bf16", None, "this CPU has no bfloat16"))
    return Health(
        cpu="A CPU (avx2)",
        cores=2,
        all_cores=64,
        vnni=False,
        amx=False,
        clips=True,
        kernels="avx2",
        kernels_trouble="",
        packages=packages,
        known_bad=("onnxruntime 1.31: it ends",),
        missing=lacking,
        speeds=speeds,
        telemetry="none",
    )

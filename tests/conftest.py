"""What tests share: graphs from text, rules applied to them, outputs compared, small checkpoints, the command line."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxfuse.normalize.duplicates import merge_duplicates
from onnxfuse.optimizer import NORMAL_RULES, clean_up, normal_form
from onnxfuse.rewrite import Analysis, Rule, Trace, rewrite
from onnxfuse.rewrite.passes import Context
from onnxfuse.runtime.sessions import compute, infer, open_session, run

os.environ.setdefault("HF_HUB_OFFLINE", "1")
HEADER = '<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'


def parse(text: str, opset: int = 23) -> ir.Model:
    """A model from onnx's text format: ``g (float[B,S,8] x) => (float[B,S,8] y) <float[8] w = {...}> { ... }``."""
    return ir.from_proto(onnx.parser.parse_model(HEADER.format(opset=opset) + text))


def ops(model: ir.Model) -> list[str]:
    """The operators of the main graph, sorted."""
    return sorted(node.op_type for node in model.graph)


def fill(model: ir.Model, seed: int = 0, **shapes: tuple[int, ...]) -> ir.Model:
    """Turn the named graph inputs into random float initializers of these shapes."""
    rng = np.random.default_rng(seed)
    for value in list(model.graph.inputs):
        if value.name in shapes:
            model.graph.inputs.remove(value)
            value.const_value = ir.tensor(rng.standard_normal(shapes[value.name]).astype(np.float32) * 0.3)
            value.shape = ir.Shape(shapes[value.name])
            model.graph.register_initializer(value)
    return model


def retype(model: ir.Model, dtype: ir.DataType) -> ir.Model:
    """Give what is float32 another floating-point type: inputs, outputs, initializers."""
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        if value.dtype == ir.DataType.FLOAT:
            value.dtype = dtype
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().astype(dtype.numpy()))
    return model


def feeds_for(model: ir.Model, sizes: dict[str, int], seed: int = 1) -> dict[str, np.ndarray]:
    """Random inputs; symbolic dimensions take their number from ``sizes``."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in model.graph.inputs:
        shape = [dim if isinstance(dim, int) else sizes[dim.value] for dim in value.shape.dims]
        kind = value.dtype.numpy()
        feeds[value.name] = (rng.integers(1, 4, shape) if kind.kind in "iub" else rng.standard_normal(shape)).astype(kind)
    return feeds


def assert_same(before: ir.Model, after: ir.Model, sizes: dict[str, int], tolerance: float = 1e-5, **given: np.ndarray) -> None:
    """Both compute the same without the loader's rewrites, to ``tolerance`` (float32 sums in another order).

    ``given``: inputs that are not random.
    """
    feeds = feeds_for(before, sizes) | given
    wanted, got = (run(open_session(ir.to_proto(m).SerializeToString(), optimize=False), feeds) for m in (before, after))
    assert set(wanted) == set(got)
    for name, array in wanted.items():
        assert got[name].shape == array.shape
        np.testing.assert_allclose(got[name], array, rtol=0, atol=tolerance * max(1.0, np.abs(array).max()))


def apply(rules: Sequence[Rule], model: ir.Model, *, normal: Sequence[Rule] = NORMAL_RULES) -> Trace:
    """Normalize, apply rules, merge duplicates; in place."""
    context = normalized(model, normal)
    rewrite(model, rules, context.analysis(model), context.trace)
    merge_duplicates(model)
    return context.trace


def normalized(model: ir.Model, rules: Sequence[Rule] = NORMAL_RULES, opset: int = 0, **options: Any) -> Context:
    """Bring a model to normal form, in place; with the options of a Context."""
    context = Context(compute, infer, **options)
    for each in normal_form(opset or model.opset_imports[""], tuple(rules)):
        context.apply(each, model)
    return context


def clean(model: ir.Model, *without: str) -> None:
    """What comes before everything else: functions inlined, constants lifted, and so on, less the passes named."""
    context = Context(compute, infer, without=frozenset(without))
    for each in clean_up():
        context.apply(each, model)


def analysis_of(model: ir.Model) -> Analysis:
    analysis = Analysis(model.opset_imports, infer)
    analysis.scan(model.graph)
    return analysis


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def unsettled(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for a runtime's threads to sleep before each timed call: what comes out is not looked at as a speed."""
    from onnxfuse.measure import benchmark

    monkeypatch.setattr(benchmark, "SETTLE", 0.0)


@pytest.fixture(autouse=True)
def not_githubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tests themselves run in GitHub's Actions, errors would come with an annotation."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run ``onnxfuse`` in an empty folder, or ``at`` another, in this process: new ones would import the libraries for seconds."""
    from onnxfuse.cli.app import main

    def call(*arguments: str | Path, at: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        command = ["onnxfuse", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.chdir(at)
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        return subprocess.CompletedProcess(command, left.value.code, *capsys.readouterr())

    return call


@pytest.fixture
def process(tmp_path: Path) -> Cli:
    """Run ``onnxfuse`` in an empty folder as a user does: a process of its own."""

    def call(*arguments: str | Path, **options) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "onnxfuse", *map(str, arguments)]
        return subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
            **options,
        )

    return call


def messages(stderr: str) -> list[str]:
    """The lines of a log besides those that name a phase, which are indented."""
    return [line for line in stderr.splitlines() if not line.startswith("  ")]


HANGS = 1200
"""Seconds after which a process that was told to end counts as hanging, on however busy a machine: a net under a test, which
waits for the thing itself."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start Python in an empty folder and go on; Ctrl-C reaches it also where the tests themselves run in the background."""
    with contextlib.ExitStack() as stack:

        def call(*arguments: str) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield call


BERT = {"vocab_size": 500, "hidden_size": 128, "num_attention_heads": 4, "intermediate_size": 256, "max_position_embeddings": 64}
DISTILBERT = {"vocab_size": 500, "dim": 128, "n_heads": 4, "hidden_dim": 256, "max_position_embeddings": 64}
VIT = {
    "hidden_size": 128,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "image_size": 32,
    "patch_size": 8,
    "num_labels": 10,
}
SMALL = {"bert": ("BertConfig", BERT), "distilbert": ("DistilBertConfig", DISTILBERT), "vit": ("ViTConfig", VIT)}


def small_model(family: str, head: str, layers: int | None = None):
    """A narrow model with random weights, biases and norms included; as deep as the real one unless told otherwise."""
    import torch
    import transformers

    from onnxfuse.exporters.pytorch import _disturb

    name, fields = SMALL[family]
    depth = {} if layers is None else {"n_layers" if family == "distilbert" else "num_hidden_layers": layers}
    torch.manual_seed(0)
    config = getattr(transformers, name)(**fields, **depth)
    model = getattr(transformers, head).from_config(config).eval()
    _disturb(model)
    return model


@pytest.fixture(scope="session")
def bert_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a two-layer BERT classifier exported through TorchScript, and its checkpoint in ``checkpoint/``."""
    from onnxfuse.config import ExportConfig
    from onnxfuse.pipeline.export import export

    folder = tmp_path_factory.mktemp("bert")
    model = small_model("bert", "AutoModelForSequenceClassification", layers=2)
    model.save_pretrained(folder / "checkpoint")
    export(ExportConfig(str(folder / "checkpoint"), folder / "export", exporter="torchscript"))
    return folder


BERT_SPECIALS = ("pad", "unk", "cls", "sep")
"""Special tokens in the order of their ids, as BERT's vocabulary begins."""


def save_tokenizer(
    folder: Path,
    size: int,
    inputs: Sequence[str] = ("input_ids", "attention_mask"),
    specials: Sequence[str] = BERT_SPECIALS,
    last: str | None = None,
    side: str = "right",
) -> None:
    """Put a tokenizer into ``folder`` that knows the ``size`` most frequent words of Python's own sentences.

    Args:
        specials: pad, unk, cls and sep in the order of their ids.
        last: of these the one that comes behind all words instead.
        side: where it pads.
    """
    from collections import Counter

    import tokenizers
    import transformers

    from onnxfuse.evaluation.sentences import docstring_sentences

    counts = Counter(word for text in docstring_sentences(500) for word in text.lower().split())
    common = [word for word, _ in counts.most_common(size - len(specials))]
    named = {role: f"[{role.upper()}]" for role in specials}
    known = [named[role] for role in specials if role != last] + common + [named[role] for role in specials if role == last]
    ids = {word: at for at, word in enumerate(known)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = tokenizers.normalizers.Lowercase(), tokenizers.pre_tokenizers.WhitespaceSplit()
    words.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words,
        model_input_names=list(inputs),
        padding_side=side,
        **{f"{role}_token": token for role, token in named.items()},
    ).save_pretrained(folder)

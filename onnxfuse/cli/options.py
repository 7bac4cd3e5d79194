"""The arguments and options of all verbs, each with its help."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeVar

from typer import Argument, Exit, Option, echo

from onnxfuse.config import BATCH, LENGTH, ROUNDS, SECONDS, THREADS, ExportConfig
from onnxfuse.errors import UsageError
from onnxfuse.io import folders, hub

V = TypeVar("V", bound=Callable[..., None])


def examples(*lines: str) -> Callable[[V], V]:
    """Give a verb examples, which stand at the end of its --help."""

    def give(verb: V) -> V:
        verb.__dict__["examples"] = lines
        return verb

    return give


def epilog(verb: Callable[..., None]) -> str:
    """The end of a verb's --help: its examples, one a line (\\b keeps them apart)."""
    lines = verb.__dict__.get("examples", ())
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def _version(asked: bool) -> None:
    if asked:
        echo(f"onnxfuse {importlib.metadata.version('onnxfuse')}")
        raise Exit


# Of every verb
Version = Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version.")]
Quiet = Annotated[bool, Option("-q", "--quiet", help="No progress, before or after the command; errors stay.")]
Debug = Annotated[bool, Option("--debug", help="Add a traceback to an error, before or after the command.")]

Source = Annotated[
    str, Argument(help="A hub id, a checkpoint's folder, a SavedModel's folder, a .keras file or a KerasHub preset's folder.")
]
Model = Annotated[Path | None, Argument(help="A folder or an .onnx file; else the current folder or the newest export.")]
Models = Annotated[list[Path], Argument(help="Folders or .onnx files; the first is the reference.")]
Output = Annotated[Path | None, Option("-o", "--output", help="Where the result goes: a folder, or a file for one model.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace files too that onnxfuse did not make.")]
Json = Annotated[bool, Option("--json", help="Print the result as JSON.")]
Plot = Annotated[Path | None, Option(help="Draw the result into this .svg, .png or .pdf file.")]

Junit = Annotated[Path | None, Option(help="Write what was asked for, and what failed, into this file as JUnit XML.")]

# Of export and run
Task = Annotated[
    str | None,
    Option(
        help="What the model is for, such as feature-extraction, fill-mask, text-classification, token-classification, "
        "question-answering, multiple-choice, sentence-similarity or image-classification; what it was saved for when not given."
    ),
]
Outputs = Annotated[
    str | None,
    Option(
        help="What the graph shows, with commas between, instead of the task's own: of sentence models sentence_embedding, "
        "token_embeddings or last_hidden_state (for tools that pool themselves); all: with an encoder's pooler_output."
    ),
]
Framework = Annotated[str | None, Option(help="pt (PyTorch) or tf (TensorFlow, Keras); the source's when not given.")]
Exporter = Annotated[
    str | None, Option(help="Of the framework's exporters one, such as torchscript; its first (torch.export) when not given.")
]
Opset = Annotated[int | None, Option(help="Opset of the export; the exporter's own when not given.")]
RandomWeights = Annotated[bool, Option("--random-weights", help="Build a known architecture without any download.")]
ModelType = Annotated[str | None, Option(help="The family, such as bert; detected when not given.")]
Format = Annotated[str, Option(help="onnx, or tflite (LiteRT, from TensorFlow).")]
Precision = Annotated[str, Option(help="Of tflite: fp32, fp16 or int8 (dynamic).")]

# Of optimize
TargetName = Annotated[
    str,
    Option(
        "--target",
        help="cpu, native (our own kernels), openvino, cuda, standard (opset 17 to 20), ort-contrib (com.microsoft), "
        "a file of tune's, or a folder.",
    ),
]
Ablate = Annotated[bool, Option("--ablate", help="Of one model: no rewrite, each alone, and all, in place of other models.")]
AblatedTarget = Annotated[str | None, Option("--target", help="Of --ablate: whose rewrites, as of optimize; cpu when not given.")]
Only = Annotated[list[str] | None, Option(help="Use this rule or pass alone, after the normal form; repeatable.")]
Without = Annotated[list[str] | None, Option(help="Leave this rule or pass out; repeatable.")]
Require = Annotated[list[str] | None, Option(help="all, or NAME=NUMBER; fail when not fused so.")]
Verify = Annotated[str, Option(help="each: prove every rewrite; final: compare the result; off.")]
Unpad = Annotated[bool | None, Option(help="Leave padding out, with zeros where outputs show it; by default where none does.")]
FixedBatch = Annotated[int | None, Option(min=1, max=BATCH, help="Fix the number of rows; any when not given.")]
FixedLength = Annotated[int | None, Option(min=1, max=LENGTH, help="Fix the length of a row; any when not given.")]
Half = Annotated[str | None, Option("--precision", help="fp16 or bf16: half the size, in a file of its own; fp32 by default.")]
HalfIo = Annotated[bool, Option("--half-io", help="Of fp16: float inputs and outputs are float16, too.")]
DumpFolder = Annotated[Path | None, Option(help="A folder for the graph after each rewrite.")]

# Of quantize
Static = Annotated[
    bool | None,
    Option(
        "--static/--dynamic",
        help="Scales of activations from calibration, or measured in each run; as the model's target says when not given.",
    ),
]
Calibration = Annotated[
    str | None,
    Option(
        help="Real inputs: a folder of .npy files, an .npz, .txt, .csv or .jsonl file, or none. Sentences of Python's own "
        "documentation for models with a tokenizer, when not given."
    ),
]
Ranges = Annotated[str, Option(help="Of static scales: minmax, percentile or entropy.")]
QuantFormat = Annotated[
    str, Option("--format", help="Of a static model: qdq, qdq-source, qoperator, or auto: the target's, or the faster here.")
]
Smooth = Annotated[str, Option(help="Move outliers into weights: auto, off, or SmoothQuant's alpha.")]
Rounding = Annotated[str, Option(help="Of weights: gptq, or nearest.")]
Attention = Annotated[str, Option(help="Of target native: fp32, or bf16, which computes attention's products in bfloat16.")]
MaxDrop = Annotated[str | None, Option(help="Accuracy that may be lost on --data, such as 0.5%.")]
MinCosine = Annotated[float | None, Option(help="Mean cosine with float that must be kept.")]
MinAgreement = Annotated[str | None, Option(help="Share of answers that must stay, as 99%.")]
ThresholdData = Annotated[Path | None, Option("--data", help="What those are measured on; else the calibration data.")]
DataBatch = Annotated[int, Option("--batch", min=1, max=BATCH, help="Rows in a batch of that data.")]
KeepEmbeddings = Annotated[bool, Option("--keep-embeddings", help="Leave embedding tables in float.")]
ReduceRange = Annotated[bool | None, Option(help="Weights that no CPU clips; measured when not given.")]
Retype = Annotated[bool, Option("--retype", help="Bring an int8 model to the fast types, u8 x s8.")]

# Of measurements and comparisons
Threads = Annotated[int, Option(min=0, max=THREADS, help="Threads for every runtime; 0 takes all cores.")]
TunedThreads = Annotated[int, Option("--threads", min=0, max=THREADS, help="Threads for one call; 0 tunes them too.")]
ItsThreads = Annotated[
    int, Option("--threads", min=0, max=THREADS, help="Threads for one call; 0 takes what the model's target says.")
]
Batch = Annotated[int | None, Option(min=1, max=BATCH, help="Rows in a batch; 1, or as the model takes, when not given.")]
Length = Annotated[int | None, Option(min=1, max=LENGTH, help="Tokens in a row; 128, or as the model takes, when not given.")]
Rows = Annotated[int, Option("--batch", min=1, max=BATCH, help="Rows in a batch.")]
Rounds = Annotated[int, Option(min=1, max=ROUNDS, help="Timed rounds.")]
CountedRounds = Annotated[int, Option("--rounds", min=1, max=ROUNDS, help="Calls that count, after some that do not.")]
OrRounds = Annotated[int | None, Option("--rounds", min=1, max=ROUNDS, help="Timed rounds; 20 without --seconds.")]
Seconds = Annotated[
    float | None,
    Option(min=0.1, max=SECONDS, help="Run time for each model instead of rounds; a tenth of it more warms up."),
]
RealShare = Annotated[float, Option("--real", min=0.01, max=1.0, help="Share of real tokens in a batch; the rest is padding.")]
Runtimes = Annotated[
    list[str] | None, Option("--runtime", help="ort, or another, such as openvino, openvino-bf16, cuda or tensorrt; repeatable.")
]
Against = Annotated[
    str | None,
    Option(
        help="Other tools, made from the first model: all, or some with commas between (torch,ort-optimizer,quantize-dynamic)."
    ),
]
Precisions = Annotated[
    list[str] | None, Option("--precision", help="fp32, fp16, bf16, int8, int8-static: what may be chosen; repeatable.")
]
TunedFile = Annotated[Path | None, Option("-o", "--output", help="The target file; tuned.json beside the model when not given.")]
Beside = Annotated[Path | None, Option("--against", help="Another folder or .onnx file, profiled side by side.")]
First = Annotated[Path, Argument(help="The reference: a folder or an .onnx file.")]
Second = Annotated[Path, Argument(help="The model in question.")]
Kind = Annotated[str, Option(help="Tolerance: exact, reassociate (float32), half (float16), bfloat16, int8 or finite.")]
RealData = Annotated[
    Path | None,
    Option("--data", help="Real inputs to compare on; for int8 those that it was calibrated with, when not given."),
]
Labelled = Annotated[
    Path,
    Option(
        "--data",
        help="Labelled samples: .csv, .tsv, .jsonl, .json (SQuAD), .parquet, .conll, a folder of images by class, .npy files, "
        "or a data set of the hub (glue:mrpc).",
    ),
]
Split = Annotated[str, Option(help="Which split, of a folder with several or of a data set of the hub.")]

# Of package
Layout = Annotated[
    str,
    Option("--for", help="optimum, sentence-transformers, transformers.js, triton, ray-serve or openvino.", metavar="LIBRARY"),
]
Package = Annotated[Path, Argument(help="A folder that package wrote, in the hub's layout.")]
Repository = Annotated[str, Argument(help="The repository's id: OWNER/NAME. It comes to be where it is not there.")]
Private = Annotated[bool, Option("--private", help="A new repository is its owner's alone.")]
OverwriteThere = Annotated[bool, Option("--overwrite", help="Replace files too in a repository that onnxfuse did not fill.")]
PackageFolder = Annotated[Path | None, Option("-o", "--output", help="The folder; packages/NAME-LIBRARY when not given.")]

# Of map
Mapping = Annotated[Path, Argument(metavar="MODEL", help="The model: a folder or a file, opened as onnxfuse.load does.")]
Input = Annotated[
    str,
    Option(
        "--input", help="The rows: a .parquet, .jsonl, .csv, .tsv or .txt file, a folder of these or of images, or a pattern."
    ),
]
Parts = Annotated[Path, Option("-o", "--output", help="The folder of the parts: a new one, or one that was begun so.")]
Columns = Annotated[
    list[str] | None, Option("--column", help="The column of the texts; repeatable for pairs. text when not given.")
]
IdColumn = Annotated[str, Option("--id", help="The column that tells rows apart; their numbers when not given.")]
Keep = Annotated[list[str] | None, Option("--keep", help="Write this column beside the answers; repeatable.")]
BatchTokens = Annotated[int, Option(min=1, help="Tokens of a batch at most, padding included.")]
PartRows = Annotated[int, Option(min=1, help="Rows of a part.")]
MapRuntime = Annotated[
    str | None, Option("--runtime", help="ort, openvino or another; as the model's target says when not given.")
]
PromptName = Annotated[str | None, Option(help="Of a sentence model: which prompt stands in front of texts; its default's.")]
MaxBad = Annotated[str, Option(help="Rows that may be bad: a number, or a share such as 1%. More end with exit code 9.")]
EngineName = Annotated[str, Option("--engine", help="local: this process; ray: a machine or cluster.")]
Address = Annotated[str, Option(help="Of ray: the running cluster's; a cluster of this machine when not given.")]
Actors = Annotated[
    int, Option(min=0, help="Of ray: how many sessions (of tune: nodes); as many as there is room for by default.")
]

# Of run
DryRun = Annotated[bool, Option("--dry-run", help="Say what would be done and written; nothing is.")]

# Of diff and report
Before = Annotated[Path, Argument(metavar="A", help="The first model: an .onnx file or a folder.")]
After = Annotated[
    Path | None, Argument(metavar="[B]", help="The second; of a folder A its model_optimized.onnx, when not given.")
]
Layer = Annotated[str, Option(help="embeddings, head, or a layer's number; the first layer when not given.")]
Page = Annotated[Path | None, Option("-o", "--output", help="The .html file; beside the model when not given.")]
ReportFolder = Annotated[Path, Argument(metavar="DIR", help="A folder that run, export or optimize wrote.")]
ReportData = Annotated[Path | None, Option("--data", help="Labelled samples to measure accuracy on: see evaluate.")]

# Of view
NoBrowser = Annotated[bool, Option("--no-browser", help="Only print the address.")]
Port = Annotated[int, Option(min=0, max=65535, help="Port to serve on; 0 takes a free one.")]


def require_source(plan: ExportConfig) -> None:
    """Refuse a hub id that cannot be had before what works on models is imported, which takes seconds.

    Only of a plan whose framework and exporter nobody chose: wrong names of these are told first.

    Raises:
        UsageError, ExportError: see ``hub.require_there``.
    """
    plain = plan.framework is None and plan.exporter is None and not plan.random_weights
    if plain and importlib.util.find_spec("huggingface_hub") is not None:
        hub.require_there(plan.source)


def pace(rounds: int | None, seconds: float | None) -> dict[str, Any]:
    """How long is measured, as fields of ``BenchmarkConfig``. Raises UsageError where both are given."""
    if rounds is not None and seconds is not None:
        raise UsageError(f"--rounds {rounds} and --seconds {seconds:g} both say how long to measure; give one of them")
    return {"rounds": rounds or 20, "seconds": seconds or 0.0}


def share(text: str, option: str, wanted: str = "a share such as 0.5% or 0.005") -> float:
    """A share as people write it. Raises UsageError."""
    try:
        number = float(text) if not text.endswith("%") else float(Decimal(text.removesuffix("%")) / 100)  # 0.7% is 0.007
    except (ValueError, ArithmeticError):
        number = -1.0
    if not 0 <= number <= 1:
        raise UsageError(f"{option} {text}: wanted {wanted}")
    return number


def number_or_share(text: str, option: str) -> int | float:
    """A whole number, or a share as people write it. Raises UsageError."""
    if text.isascii() and text.isdigit() and len(text) < 19:
        return int(text)
    return share(text, option, "how many, or a share such as 1%")


def half(precision: str | None) -> str | None:
    """Which half precision is asked for; None where none is. Raises UsageError."""
    if precision not in (None, "fp32", *folders.HALVED):
        raise UsageError(f"--precision {precision:.40}: wanted one of fp32, {', '.join(folders.HALVED)}")
    return precision if precision in folders.HALVED else None


def names(text: str | None, option: str) -> tuple[str, ...]:
    """Names with commas between them; none where nothing was given. Raises UsageError for an empty one."""
    found = () if text is None else tuple(name.strip() for name in text.split(","))
    if "" in found:
        raise UsageError(f"{option} {text}: wanted names with commas between them")
    return found

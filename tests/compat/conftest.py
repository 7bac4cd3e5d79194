"""Models to package, and the libraries that open the packages: each in an environment of its own (``make test-compat``).

What a library gives is compared here, with what ``onnxfuse.load`` gives of the files that were packaged, by the table of tolerances.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxfuse
from onnxfuse.config import PackageConfig
from onnxfuse.io import folders
from onnxfuse.pipeline.package import Packaged, package
from onnxfuse.runtime import Feeds, Outputs
from onnxfuse.verify import parity
from onnxfuse.verify.expected import Expected
from onnxfuse.verify.grid import Case
from onnxfuse.verify.opened import Opened
from tests.conftest import save_tokenizer, small_model

ROOT = Path(__file__).parents[2]
READERS = Path(__file__).parent / "readers"
VENV = ROOT / ".venv-compat"
PROGRAMS = {".py": VENV / "bin" / "python", ".mjs": VENV / "bin" / "node"}
"""What runs a reader, by its suffix; the modules of Node lie in the same environment."""

TASKS = {
    "text-classification": ("bert", "AutoModelForSequenceClassification"),
    "token-classification": ("bert", "AutoModelForTokenClassification"),
    "question-answering": ("bert", "AutoModelForQuestionAnswering"),
    "fill-mask": ("distilbert", "AutoModelForMaskedLM"),
    "feature-extraction": ("distilbert", "AutoModel"),
    "multiple-choice": ("bert", "AutoModelForMultipleChoice"),
    "image-classification": ("vit", "AutoModelForImageClassification"),
}
"""Small models with random weights, as transformers 5 saves them."""

ROW = {"float": "reassociate", "int8": "int8"}
"""The row of the tolerances for each precision."""

MODELS = [(task, each) for task in TASKS for each in ROW if (task, each) != ("multiple-choice", "int8")]
"""What is made of them: one number per choice of a random model does not keep its cosine in int8."""

SENTENCES, POOLED = "sentence-transformers", "sentence_embedding"
"""all-MiniLM-L6-v2 as that library wants it, and as onnxfuse exports it by default."""

PADDINGS = ("none", "right", "left")
TEXTS = (
    "Return the name of a file.",
    "A sequence of numbers, each of which is larger than the one before it, or an error where there is none of that kind at all.",
    "True.",
)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a model by its name: exported, optimized and quantized once."""
    home, known = tmp_path_factory.mktemp("models"), dict[str, Path]()

    def call(name: str) -> Path:
        if name not in known:
            known[name] = _sentence(home, name) if name in (SENTENCES, POOLED) else _small(home, name)
        return known[name]

    return call


def _small(home: Path, task: str) -> Path:
    source = home / f"{task}-checkpoint"
    family, head = TASKS[task]
    small_model(family, head, layers=2).save_pretrained(source)
    if family == "vit":
        import transformers

        transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(source)
    else:
        types = ["token_type_ids"] if family == "bert" else []
        save_tokenizer(source, 500, ("input_ids", "attention_mask", *types))
    optimized = onnxfuse.optimize(onnxfuse.export(source, home / task, task=task))
    if (task, "int8") in MODELS:
        onnxfuse.quantize(optimized, **({"calibration": "none"} if family == "vit" else {}))
    return home / task


def _sentence(home: Path, name: str) -> Path:
    from scripts.demo import minilm

    outputs = ["last_hidden_state"] if name == SENTENCES else ()
    exported = onnxfuse.export(str(minilm()), home / f"minilm-{name}", outputs=outputs)
    if name == SENTENCES:
        onnxfuse.quantize(onnxfuse.optimize(exported))
    return exported.path.parent


@pytest.fixture(scope="session")
def packaged(made: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Packaged]:
    """A model's package for a library. All packages lie in one folder, from which the readers are started."""
    home = tmp_path_factory.mktemp("packages")

    def call(model: str, library: str) -> Packaged:
        out = home / f"{model}-{library}"
        return package(PackageConfig(source_of(made(model), "float"), library, out))

    return call


def cases(model: Path) -> list[Case]:
    """Inputs of a model without padding, and with padding on either side."""
    profile = Opened(model).profile
    names = PADDINGS if profile.sequences else PADDINGS[:1]
    return [Case(each, profile.feeds(3, 9, mask=each, seed=at)) for at, each in enumerate(names)]


def read(reader: str, asked: Sequence[Mapping[str, Any]], folder: Path, cwd: Path) -> list[Any]:
    """What a reader answers, in the environment of its library."""
    program = PROGRAMS[Path(reader).suffix]
    assert program.exists(), f"{program} is not there; run: make test-compat"
    (folder / "asked.json").write_text(json.dumps(asked))
    command = [program, READERS / reader, folder / "asked.json", folder / "answers.json"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"MODULES": str(VENV)}
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "answers.json").read_text())


def as_json(feeds: Feeds) -> dict[str, Any]:
    return {name: {"type": str(a.dtype), "dims": list(a.shape), "data": a.ravel().tolist()} for name, a in feeds.items()}


def as_arrays(outputs: Mapping[str, Any]) -> Outputs:
    return {name: np.array(each["data"], np.float32).reshape(each["dims"]) for name, each in outputs.items()}


def require_alike(model: Path, answers: Sequence[Mapping[str, Any]], precision: str) -> None:
    """Hold a library's outputs on ``cases`` against what ``onnxfuse.load`` gives of the file that was packaged."""
    ours = onnxfuse.load(model)
    expected = [Expected(case, ours.run(case.feeds)) for case in cases(model)]
    assert len(answers) == len(expected)
    given = {id(each.case.feeds): as_arrays(found) for each, found in zip(expected, answers, strict=True)}
    parity.compare(expected, lambda feeds: given[id(feeds)], ROW[precision]).require(f"{model}, {precision}")


def source_of(folder: Path, precision: str) -> Path:
    """The file that was packaged."""
    return folders.source_file(folder, *((folders.OPTIMIZED, folders.MODEL) if precision == "float" else (folders.QUANTIZED,)))

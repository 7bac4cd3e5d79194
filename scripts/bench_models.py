"""What ``bench.py`` measures: a checkpoint, its exports, what onnxfuse makes of them, and other tools' ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from bench_workloads import FIRST, MINILM, NATIVE, NATIVE_BF16, NATIVE_FP32, TASKS, TS, TUNED, TUNED_BF16, TUNED_FP32, peers
from demo import minilm
from rich.console import Console

from onnxfuse import targets
from onnxfuse.config import ExportConfig, OptimizeConfig, QuantizeConfig, Scheme
from onnxfuse.errors import OnnxfuseError
from onnxfuse.exporters import open_checkpoint
from onnxfuse.io import atomic, onnx_file
from onnxfuse.io.quiet import quiet
from onnxfuse.pipeline import baselines, compare
from onnxfuse.pipeline.compare import Candidate, Row
from onnxfuse.pipeline.export import export
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.pipeline.quantize import quantize
from onnxfuse.runtime import Feeds, Settings, runtimes
from onnxfuse.targets import Target
from onnxfuse.verify.inputs import profile_of

ROWS = "rows.npz"
"""The random rows that int8 is calibrated with, beside the models."""

LABELS = 150
"""Of classifiers of texts: as many as there are intents in CLINC150."""

TRIED = 5
"""Rounds in which the product's form is chosen, before and apart from those that are published."""


@dataclass(frozen=True)
class Form:
    """One of ours: a file, made for a runtime's target and opened in that runtime; ``scheme`` None is float, ``unpad`` as of
    ``OptimizeConfig``, ``separate`` projections of queries, keys and values are not merged, and ``native`` operators are our own,
    of ``precision`` where that is not the target's."""

    name: str
    runtime: str = "ort"
    scheme: Scheme | None = None
    unpad: bool | None = None
    separate: bool = False
    native: bool = False
    precision: str | None = None

    @property
    def kind(self) -> str:
        return "int8" if self.scheme else self.precision or "fp32"

    @property
    def target(self) -> Target:
        if self.native:
            return targets.find(targets.NATIVE)
        known = targets.find(runtimes()[self.runtime].target)
        return known.choosing(qkv="separate") if self.separate else known

    @property
    def file(self) -> str:
        """Where it lies: forms of one file differ in the runtime alone."""
        kind = self.precision or "float"
        if self.scheme is not None:
            kind = f"{'static' if self.scheme.static else 'dynamic'}-{self.scheme.smooth}-{self.scheme.attention}"
        return f"{self.target.name}{'-separate' * self.separate}-unpad-{self.unpad}/{kind}.onnx"


IN_OPENVINO = (("openvino", "OpenVINO"), ("openvino-bf16", "OpenVINO bf16"))

FORMS = (
    Form("onnxfuse"),
    Form("onnxfuse --no-unpad", unpad=False),
    *(Form(f"onnxfuse in {label}", runtime) for runtime, label in IN_OPENVINO),
    Form("onnxfuse int8", scheme=Scheme(static=False)),
    Form("onnxfuse int8 --no-unpad", scheme=Scheme(static=False), unpad=False),
    Form("onnxfuse int8 static in ONNX Runtime", scheme=Scheme(static=True, format="qdq")),
    *(
        Form(f"onnxfuse int8 static{said} in {label}", runtime, Scheme(static=True, smooth=smooth), unpad, separate)
        for said, smooth, unpad, separate in (
            ("", "auto", None, False),
            (" --smooth off", "off", None, False),
            (" --no-unpad", "auto", False, False),
            (" --no-unpad, qkv separate", "auto", False, True),
        )
        for runtime, label in IN_OPENVINO
    ),
    *(
        Form(f"onnxfuse native{kind}{said}", scheme=scheme, unpad=unpad, native=True, precision=precision)
        for kind, scheme, precision in (
            ("", None, None),
            (" bf16", None, "bf16"),
            (" int8", Scheme(static=False), None),
            (" bf16+int8", Scheme(static=False, attention="bf16"), None),
        )
        for said, unpad in (("", None), (" --no-unpad", False))
    ),
)

PRODUCTS: dict[str, Callable[[Candidate], bool]] = {
    TUNED: lambda form: True,
    TUNED_FP32: lambda form: form.kind == "fp32",
    TUNED_BF16: lambda form: form.kind == "bf16",
    NATIVE: lambda form: "native" in form.name and form.kind == "int8",
    NATIVE_FP32: lambda form: "native" in form.name and form.kind == "fp32",
    NATIVE_BF16: lambda form: "native" in form.name and form.kind == "bf16",
}
"""Which forms each of the product's rows may be."""


def product(name: str, tried: Sequence[Row]) -> Candidate | None:
    """The product's row: the fastest of our forms, as tried, that are as near to PyTorch as their precision must be.

    The forms run as themselves too. None where none is there.
    """
    passed = [row for row in tried if PRODUCTS[name](row.candidate) and row.parity is not None and row.parity.passed]
    if not passed:
        return None
    best = min(passed, key=lambda row: row.timing.p50).candidate
    return replace(best, name=f"{name}: {best.name.removeprefix('onnxfuse').strip() or 'fp32'}")


def checkpoint(name: str) -> object:
    """What is measured under a name: random weights where there is no checkpoint, and of a classifier of texts ``LABELS``: the
    cosine of two numbers tells nothing. None where the name says all."""
    if TASKS[name] != "text-classification":
        return None
    import torch
    from transformers import AutoModelForSequenceClassification

    with quiet():
        config = open_checkpoint(name, random_weights=True).module.model.config
        config.num_labels = LABELS
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_config(config).eval()


class Model:
    """One checkpoint, its exports, what onnxfuse makes of them, and the baselines' scratch folders.

    Args:
        source: a checkpoint in memory in place of the one that ``name`` stands for.
    """

    def __init__(self, name: str, folder: Path, log: Console, threads: int, source: object = None) -> None:
        log.print(f"exporting {name}", highlight=False)
        self.folder, self.log, self.threads = folder, log, threads
        self.contexts = {}
        known = str(minilm()) if name == MINILM else name
        for exporter, suffix in (("torchscript", TS), ("dynamo", "")):
            random = name != MINILM and source is None
            plan = ExportConfig(known, folder / exporter, task=TASKS[name], exporter=exporter, random_weights=random)
            made = export(plan, source=source)
            family = made.checkpoint.family.model_type
            self.contexts[suffix] = baselines.Context(made.path, family, folder / f"made-{exporter}", threads, made.checkpoint)
        self._kept: dict[str, Candidate] = {}
        self.source = made.path
        self.profile = profile_of(onnx_file.load(self.source), made.checkpoint.config)

    def form(self, form: Form) -> Candidate:
        """One of ours, judged as the peers are: on the inputs that are timed. Raises OnnxfuseError."""
        path = self.folder / form.file
        if not path.exists():
            self.log.print(f"making {form.file}", highlight=False)
            path.parent.mkdir(exist_ok=True)
            if form.scheme is None:
                target = path.with_suffix(".json")
                atomic.save_json(form.target.to_json(), target)
                asked = {} if form.precision is None else {"precision": form.precision}
                optimize(OptimizeConfig(self.source, path, str(target), require=("all",), unpad=form.unpad, **asked))
            else:
                plain = self.form(replace(form, scheme=None)).path
                assert plain is not None
                rows = path.with_name(ROWS)
                save_rows(baselines.calibration_rows(self.source), rows)
                quantize(QuantizeConfig(plain, path, scheme=form.scheme, calibration=str(rows)))
        made = compare.from_file(path, form.name, Settings(form.runtime, self.threads))
        return replace(made, real=None, unjudged="")

    def peer(self, name: str) -> Candidate:
        """Another tool's way. Raises OnnxfuseError."""
        context = self.contexts[TS if name.endswith(TS) else ""]
        return replace(compare.from_baseline(baselines.known()[name.removesuffix(TS)], context), name=name)

    def candidates(self, inputs: list[Feeds], failed: dict[str, str]) -> list[Candidate]:
        """PyTorch, the peers, our forms, and the product; ``failed`` receives why one is not there."""
        theirs = self.opened({name: (lambda name=name: self.peer(name)) for name in (FIRST, *peers())}, failed)
        ours = self.opened({form.name: (lambda form=form: self.form(form)) for form in FORMS}, failed)
        self.log.print("choosing the product's form", highlight=False)
        tried = compare.measure([theirs[0], *ours], inputs, TRIED, failed)
        mine = [tried[form.name] for form in ours if form.name in tried]
        found = {name: product(name, mine) for name in PRODUCTS}
        failed |= {name: "none of its forms is near enough to PyTorch" for name, made in found.items() if made is None}
        return [*theirs, *ours, *(made for made in found.values() if made is not None)]

    def opened(self, entries: dict[str, Callable[[], Candidate]], failed: dict[str, str]) -> list[Candidate]:
        found = []
        for name, open_it in entries.items():
            if name not in self._kept:
                self.log.print(f"opening {name}", highlight=False)
                try:
                    made = open_it()
                except OnnxfuseError as error:
                    failed[name] = str(error).replace(str(self.folder), "")
                    continue
                if not (made.path or baselines.known()[name.removesuffix(TS)].exported):
                    found.append(made)  # of compiled models the first sizes are the fastest: opened anew for each workload
                    continue
                self._kept[name] = made
            found.append(self._kept[name])
        return found


def save_rows(rows: Sequence[Feeds], path: Path) -> None:
    """Rows of several lengths as a data set: each input in one array, padded at the end, where the mask is 0."""
    np.savez(path, **{name: _stacked([row[name] for row in rows]) for name in rows[0]})


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays of one row each as the rows of one, zeros behind what is shorter."""
    sizes = np.array([array.shape for array in arrays])
    return np.concatenate(
        [np.pad(array, [(0, gap) for gap in sizes.max(axis=0) - size]) for array, size in zip(arrays, sizes, strict=True)]
    )

"""What ``run`` would do and write, by what can be read without loading or writing anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxfuse import catalog, targets
from onnxfuse.config import BenchmarkConfig, ExportConfig
from onnxfuse.exporters import choose_exporter, choose_opset, framework_of, frameworks
from onnxfuse.exporters.description import describe
from onnxfuse.exporters.pytorch import require_checkpoint
from onnxfuse.exporters.tasks import checked
from onnxfuse.io import folders
from onnxfuse.io.ours import is_ours
from onnxfuse.pipeline import forms
from onnxfuse.pipeline.export import guard_of
from onnxfuse.pipeline.optimize import require_countable
from onnxfuse.pipeline.step import fitted
from onnxfuse.verify.inputs import profile_of_family

LATER = "as the checkpoint says, which is read when the run begins"


@dataclass(frozen=True)
class Planned:
    """What a run would do.

    Args:
        framework: what opens the source, for people.
        model_type, task: None where only the checkpoint tells, and it was not read.
        files: what would be written, each with what is there now: "nothing", "ours" or "others".
        static: whether the target's int8 has scales from calibration.
    """

    source: str
    framework: str
    model_type: str | None
    task: str | None
    exporter: str
    opset: int
    target: str
    require: tuple[str, ...]
    files: dict[Path, str]
    static: bool = False

    def to_json(self) -> dict[str, Any]:
        content = {name: value for name, value in vars(self).items() if name not in ("files", "static")}
        files = [{"path": str(path), "there": there} for path, there in self.files.items()]
        return {"dry_run": True, **content, "require": list(self.require), "files": files}

    def lines(self) -> list[str]:
        """For people: the steps, then the files."""
        asked = f", which must have fused {', '.join(self.require)}" if self.require else ""
        steps = [
            f"export {self.source} from {self.framework} with {self.exporter}, opset {self.opset}",
            f"  family: {self.model_type or LATER}; task: {self.task or LATER}",
            f"optimize for target {self.target}{asked}; quantize to int8 where linear layers are large enough",
            f"compare all with {self.framework}, and measure",
        ]
        states = {"nothing": "new", "ours": "replaces what onnxfuse made", "others": "replaces a file of others (--overwrite)"}
        if_calibrated = {folders.STATIC, *([folders.QUANTIZED] if self.static else [])}
        files = [
            f"  {path}: {states[there]}" + (", if inputs to calibrate it with are there" if path.name in if_calibrated else "")
            for path, there in self.files.items()
        ]
        return [*steps, *files, "nothing was done or written"]


def dry_run(
    plan: ExportConfig, target: str, measure: BenchmarkConfig, require: Sequence[str] = (), half: str | None = None
) -> Planned:
    """Plan a run; nothing is loaded, downloaded or written.

    Raises:
        OnnxfuseError: what would stop the run before its work: a target, exporter, task or family that does not exist, a broken
            config.json, more tokens than it has positions for, a file in the way.
    """
    guard_of(plan, *folders.MADE)
    with targets.use(target) as chosen:
        gains = forms.gains(chosen)
        require_countable(require)
    framework = framework_of(plan.source, plan.framework)
    exporter = choose_exporter(plan.exporter, framework)
    opset = choose_opset(exporter, plan.opset)
    model_type, task, beside = _described(plan, framework, measure)
    missing = {folders.FUSED} if gains else {folders.FUSED, folders.STATIC}  # the first one stays if it wins
    missing |= {name for precision, name in folders.HALVED.items() if precision != half}
    models = [each for each in folders.MADE if each not in missing]
    files = {plan.out / each: _there(plan.out, each) for each in (*models, "config.json", *beside, folders.RECORD)}
    label = frameworks()[framework].label
    static = targets.PRECISIONS[chosen["precision"]][1] == "static"
    return Planned(plan.source, label, model_type, task, exporter, opset, chosen.name, tuple(require), files, static)


def _described(plan: ExportConfig, framework: str, measure: BenchmarkConfig) -> tuple[str | None, str | None, Sequence[str]]:
    """Family, task, and the files beside the model, of what can be read here; else what was asked for."""
    if plan.random_weights:
        family, _ = catalog.checkpoint(plan.source, plan.model_type)
        return family.model_type, None if plan.task is None else checked(plan.task, family), ()
    if framework == "pt":
        require_checkpoint(plan.source, plan.task, plan.model_type)
    if framework != "pt" or not Path(plan.source).is_dir():
        return plan.model_type, plan.task, ()
    found = describe(plan.source, plan.task, plan.model_type)
    if found.task is not None:
        fitted(measure, profile_of_family(found.family, found.fields, found.task))
    return found.family.model_type, found.task, (*found.texts, *found.files)


def _there(home: Path, name: str) -> str:
    if not (home / name).exists():
        return "nothing"
    return "ours" if is_ours(home, name) else "others"

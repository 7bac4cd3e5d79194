"""The forms in which a folder's models can be used: each file in each runtime that computes it as it is meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnxfuse.config import QuantizeConfig, Scheme
from onnxfuse.errors import MissingExtraError, ModelError, OnnxfuseError, ParityError, first_line
from onnxfuse.io import folders
from onnxfuse.io.progress import Progress
from onnxfuse.measure import fastest, machine
from onnxfuse.measure.benchmark import Timing
from onnxfuse.measure.fastest import Fastest
from onnxfuse.pipeline.optimize import Optimized, write_for
from onnxfuse.pipeline.quantize import Quantized, quantize
from onnxfuse.runtime import USUAL, Runner, Runtime, Settings, open_runner, require, runtimes
from onnxfuse.targets import PRECISIONS, Target, is_int8
from onnxfuse.verify import tolerances, verdict
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from onnxfuse.verify.opened import Opened
from onnxfuse.verify.parity import Parity
from onnxfuse.verify.profile import Profile
from onnxfuse.verify.verdict import Real


@dataclass(frozen=True)
class Form:
    """A file opened in a runtime.

    Args:
        stored: the file's precision, one of ``targets.PRECISIONS``.
        kind: a row of ``tolerances.TOLERANCES``: what it is held to.
    """

    path: Path
    stored: str
    settings: Settings
    kind: str
    run: Runner

    @property
    def name(self) -> str:
        return fastest.name_of(self.path.name, self.settings.runtime)


def meant(precision: str, runtime: Runtime) -> bool:
    """Whether a runtime computes a model of a precision (see ``targets.PRECISIONS``) as it is meant: int8 in whole numbers."""
    return PRECISIONS[precision][1] in ("", *runtime.integers)


def computed(precision: str, runtime: Runtime) -> str:
    """What a runtime computes a model of a precision in: a key of ``tolerances.OF_PRECISION``."""
    return runtime.precision(PRECISIONS[precision][0])


def here() -> tuple[dict[str, Runtime], list[str]]:
    """The runtimes of ONNX files that this machine has, by name, and why it has not others.

    Those that stand in for another one are left out where that is there, and not missed where they are not.
    """
    found, why = dict[str, Runtime](), dict[str, None]()
    known = runtimes(".onnx").items()
    for name, runtime in sorted(known, key=lambda each: each[1].instead_of != ""):
        if runtime.instead_of in found:
            continue
        try:
            require(runtime)
        except (MissingExtraError, ModelError) as error:
            if not runtime.instead_of and not runtime.rare:
                why[f"not tried: {first_line(error)}"] = None
        else:
            found[name] = runtime
    return found, list(why)


def open_forms(files: Mapping[Path, str], settings: Settings) -> tuple[list[Form], list[str]]:
    """Every form of some files, but those that the caller has already in the ``USUAL`` runtime; and why some cannot be had.

    Args:
        files: the precision of each, by paths with names of ``fastest.FILES``.
        settings: of the target; every runtime takes the same ones.
    """
    forms = []
    known, refused = here()
    for name, runtime in known.items():
        for path in _float_for(runtime, list(files), settings):
            there = name == USUAL and path.name not in (folders.STATIC, *folders.HALVED.values())
            if there or not meant(files[path], runtime):
                continue
            opened = replace(settings, runtime=name)
            kind = tolerances.OF_PRECISION[computed(files[path], runtime)]
            try:
                forms.append(Form(path, files[path], opened, kind, open_runner(path, opened)))
            except ModelError as error:
                refused.append(f"{fastest.name_of(path.name, name)}: {first_line(error)}")
    return forms, refused


def _float_for(runtime: Runtime, paths: Sequence[Path], settings: Settings) -> list[Path]:
    """The files without the float model that was not fused for this runtime, where there are two."""
    elsewhere = runtime.target != runtimes(".onnx")[settings.runtime].target and any(path.name == folders.FUSED for path in paths)
    return [path for path in paths if path.name != (folders.OPTIMIZED if elsewhere else folders.FUSED)]


@dataclass(frozen=True)
class Others:
    """The forms beside the usual ones: those that agree with the original, their parity by name, and why others take no part."""

    forms: tuple[Form, ...]
    parity: Mapping[str, Parity]
    refused: tuple[str, ...]

    @classmethod
    def of(cls, files: Mapping[Path, str], settings: Settings, original: Runner, profile: Profile, real: Real | None) -> Others:
        """Open the other forms of some files, and hold them against what these come from.

        Args:
            files, settings: as of ``open_forms``.
            original: what the files were made from.
            profile: of its inputs.
            real: what int8 was calibrated with.
        """
        opened, refused = open_forms(files, settings)
        random = expect(original, list(grid(profile))) if opened else []
        known = expect(original, real.cases) if opened and real is not None else []
        agrees: dict[str, Parity] = {}
        for form in opened:
            int8 = is_int8(form.stored) and real is not None
            name = real.name if int8 and real is not None else ""
            try:
                found = verdict.judge(random, known if int8 else [], form.run, form.kind, name)
            except OnnxfuseError as error:
                refused.append(f"{form.name}: {first_line(error)}")
                continue
            if found.passed:
                agrees[form.name] = found
            else:
                refused.append(f"{form.name} is too far from the original: {found.failures[0]}")
        return cls(tuple(form for form in opened if form.name in agrees), agrees, tuple(refused))


def gains(target: Target) -> Runtime | None:
    """A runtime here that multiplies int8 in whole numbers only with scales from calibration, where the target's own int8 is not
    made for it."""
    own = runtimes(".onnx")[target.session.runtime]
    made = own.static if PRECISIONS[target["precision"]][1] == "static" else ""
    return next((each for each in here()[0].values() if "dynamic" not in each.integers and each.static != made), None)


def fuse_elsewhere(exported: Opened, optimized: Optimized, target: Target, progress: Progress) -> Opened | None:
    """The model fused for the runtime here that gains from static int8, written beside ``optimized``; None where there is none,
    or that one is made for it already."""
    runtime = gains(target)
    if runtime is None or runtime.target == optimized.target:
        return None
    progress(f"fusing for {runtime.target}")
    return write_for(runtime.target, exported, optimized.path.with_name(folders.FUSED))


def drop(path: Path) -> None:
    """Delete a model that nobody is to find, with its weights."""
    for each in (path, path.with_name(f"{path.name}.data")):
        each.unlink(missing_ok=True)


def static_int8(source: Opened, quantized: Quantized | None, target: Target, progress: Progress) -> tuple[Quantized | None, str]:
    """The int8 model with scales from calibration, for the runtime that gains from it; or None, and why there is none.

    Args:
        source: the model fused for that runtime; the int8 model is written beside it.
    """
    if quantized is None or quantized.real is None:
        return None, "it needs inputs to be calibrated with" if quantized is not None else "nothing is int8"
    runtime = gains(target)
    if runtime is None and quantized.precision == "int8-static":
        return None, "int8 is static already"
    if runtime is None:
        return None, "no runtime that gains from static int8 is installed; OpenVINO does: pip install 'onnxfuse[openvino]'"

    def tell(text: str, done: float | None = None, step: str = "") -> None:
        progress(f"static int8: {text}", done, step)  # dynamic int8 has the same phases

    scheme = Scheme(static=True, format=runtime.static)
    try:
        return quantize(QuantizeConfig(source.path, source.path.with_name(folders.STATIC), scheme), tell, source), ""
    except ParityError as error:
        return None, first_line(error)


def choose(others: Others, steps: Mapping[str, Path], settings: Settings, threads: int, timings: Mapping[str, Timing]) -> Fastest:
    """The fastest form of those that were measured: what ``load`` opens on machines of this kind.

    Args:
        steps: the files that were measured in the ``USUAL`` runtime, by their rows; the last is the one that ``load`` opens
            elsewhere, in the target's runtime if it was measured there.
        settings: what all were measured with, but for the runtime: of the target.
        threads: what it is opened with.
    """
    places = {name: (path, replace(settings, runtime=USUAL)) for name, path in steps.items()}
    places |= {form.name: (form.path, form.settings) for form in others.forms}
    last = list(steps)[-1]
    own = fastest.name_of(steps[last].name, settings.runtime)
    usual = own if own in places else last
    name, speed = fastest.choose(timings, usual, [each for each in places if each != usual])
    chosen, opened = places[name]
    fingerprint = folders.fingerprint(chosen)
    return Fastest(chosen.name, fingerprint, replace(opened, threads=threads), machine.kind(), speed, opened.threads)

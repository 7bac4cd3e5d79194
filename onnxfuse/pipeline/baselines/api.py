"""What a baseline is, and what it is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxfuse.errors import MissingExtraError, ModelError, OnnxfuseError, UsageError, first_line
from onnxfuse.io import folders, onnx_file, places
from onnxfuse.io.quiet import quiet
from onnxfuse.runtime import Feeds, Outputs, Runner, Settings, open_runner
from onnxfuse.verify.inputs import profile_of

if TYPE_CHECKING:
    from onnxfuse.exporters import Checkpoint

LENGTHS = (16, 32, 64, 96, 128)
"""Lengths of the random rows that static int8 is calibrated with, where the model is not shorter."""

ROWS = 4
"""Random rows of each length."""


@dataclass
class Context:
    """What baselines are made from and with.

    Args:
        model: the plain export.
        family: its model type.
        folder: for what is made on the way.
        threads: for every runtime; 0 takes its default.
        checkpoint: what the export came from; opened from the export's record when None.
    """

    model: Path
    family: str
    folder: Path
    threads: int = 0
    checkpoint: Checkpoint | None = None
    _made: dict[str, Path] = field(default_factory=dict)

    def torch(self) -> Checkpoint:
        """The checkpoint. Raises UsageError when the export's record does not lead to it."""
        if self.checkpoint is None:
            self.checkpoint = checkpoint_of(self.model)
        return self.checkpoint

    def made(self, name: str, make: Callable[[Context, Path], None]) -> Path:
        """The file, in a folder of its own, that ``make`` writes, made once."""
        if name not in self._made:
            path = self.folder / name / folders.MODEL
            path.parent.mkdir(parents=True, exist_ok=True)
            with quiet():
                make(self, path)
            self._made[name] = path
        return self._made[name]

    def session(self, path: Path, runtime: str = "ort") -> Made:
        """A file in one of our runtimes."""
        return Made(open_runner(path, Settings(runtime, self.threads)), onnx_file.model_bytes(path))


@dataclass(frozen=True)
class Made:
    """What runs a model, and the bytes of its weights as the tool has them."""

    run: Runner
    size: int


@dataclass(frozen=True)
class Baseline:
    """One way to run the model without onnxfuse.

    Args:
        name: as ``--against`` takes it.
        kind: a key of ``tolerances.OF_PRECISION``: fp32, bf16 or int8.
        make: what runs it. Anything may go wrong here that goes wrong in the tool.
        exported: whether it starts from the exported file, not from the checkpoint.
    """

    name: str
    kind: str
    make: Callable[[Context], Made]
    exported: bool = False

    def open(self, context: Context) -> Made:
        """What runs it, and raises ModelError in the tool's own words where the tool fails.

        Raises:
            MissingExtraError: the tool is not installed.
            OnnxfuseError: it cannot take this model.
        """
        with self._blamed():
            made = self.make(context)

        def call(feeds: Feeds) -> Outputs:
            with self._blamed():
                return made.run(feeds)

        return replace(made, run=call)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        try:
            yield
        except OnnxfuseError:
            raise
        except ImportError as error:
            raise MissingExtraError(f"measuring against {self.name}", "baselines") from error
        except Exception as error:
            raise ModelError(f"{self.name} failed: {first_line(error)[:200]}") from error


def from_file(make: Callable[[Context, Path], None], name: str) -> Callable[[Context], Made]:
    """The file that ``make`` writes under a name, in ONNX Runtime."""
    return lambda context: context.session(context.made(name, make))


def checkpoint_of(model: Path, framework: str = "pt") -> Checkpoint:
    """The checkpoint that ``onnxfuse export`` made a model from, by the record beside it. Raises UsageError, ExportError."""
    from onnxfuse.exporters import frameworks, open_checkpoint

    export = folders.recorded(model.parent).get("export", {})
    plan = export.get("plan")
    if plan is None or export.get("framework") != framework:
        label = frameworks()[framework].label
        raise UsageError(
            f"{model.with_name(folders.RECORD)} does not say which {label} checkpoint {model.name} came from; "
            f"{label} can be measured beside what onnxfuse export wrote from it"
        )
    return open_checkpoint(
        places.found(plan["source"], model.parent),
        task=plan["task"],
        model_type=plan["model_type"],
        random_weights=plan["random_weights"],
        seed=plan["seed"],
        framework=framework,
        outputs=tuple(plan.get("outputs", ())),
    )


def calibration_rows(model: Path) -> list[Feeds]:
    """Random rows, one a batch, of each of ``LENGTHS``: what static int8 is calibrated with where there are no data."""
    profile = profile_of(onnx_file.load(model), folders.read_config(model))
    return [profile.feeds(1, min(length, profile.longest), seed=seed) for seed in range(ROWS) for length in LENGTHS]


def in_torch(checkpoint: Checkpoint, context: Context, *, compiled: bool = False, bfloat16: bool = False) -> Made:
    """A checkpoint in PyTorch: see ``torch_runner``."""
    from onnxfuse.exporters import torch_runner

    weights = (*checkpoint.module.parameters(), *checkpoint.module.buffers())
    run = torch_runner(checkpoint, context.threads, compiled=compiled, bfloat16=bfloat16)
    return Made(run, sum(map(tensor_bytes, weights)))


def tensor_bytes(tensor: Any) -> int:
    """Bytes of a tensor of torch; of one that is made of others, theirs."""
    if hasattr(tensor, "__tensor_flatten__"):
        return sum(tensor_bytes(getattr(tensor, name)) for name in tensor.__tensor_flatten__()[0])
    return int(tensor.numel() * tensor.element_size())

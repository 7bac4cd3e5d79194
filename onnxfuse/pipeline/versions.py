"""Which packages are here, which were tried, which pairs are known to fail, and what is missing for which verb."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

TRIED = {
    "onnx": "1.23.2",
    "onnx-ir": "1.1.0",
    "onnxscript": "0.7.2",
    "onnxruntime": "1.32.0",
    "numpy": "2.4.6",
    "protobuf": "7.36.2",
    "typer": "0.29.2",
    "rich": "15.0.0",
    "packaging": "26.4",
    "torch": "2.13.0",
    "transformers": "5.24.0",
    "h5py": "3.16.0",
    "netron": "9.3.3",
    "matplotlib": "3.11.2",
    "openvino": "2026.4.1",
    "onnxruntime-ep-openvino": "1.8.1",
    "nncf": "3.4.0",
    "datasets": "5.2.0",
    "scikit-learn": "1.9.1",
    "sentence-transformers": "6.2.0",
    "tokenizers": "0.23.3",
}
"""What the tests run with (requirements.lock); the oldest that pyproject.toml allows are tested, too."""

FOR = {
    "torch": "export and run of PyTorch checkpoints",
    "tf": "export and run of TensorFlow and Keras models (an environment of its own)",
    "litert": "benchmark of .tflite models",
    "view": "view",
    "plot": "--plot of benchmark, quantize, profile and ablate",
    "report": "diff and report",
    "openvino": "--runtime openvino of benchmark and tune",
    "gpu": "--runtime cuda and tensorrt, on NVIDIA's GPUs",
    "ort-openvino": "--runtime ort-openvino of benchmark and tune, on Intel's CPUs",
    "baselines": "benchmark --against",
    "eval": "--data and --calibration of saved data sets",
    "text": "encode, answer, classify and fill of onnxfuse.load in Python, without torch",
    "map": "map",
    "ray": "--engine ray of map, evaluate, tune",
    "ray-serve": "serving what package --for ray-serve writes",
    "sentences": "onnxfuse.sentence_transformer in Python",
}
"""What each extra is for."""


@dataclass(frozen=True)
class Pair:
    """Two packages that fail together, or one that fails here (``other`` empty): versions as pip writes them."""

    name: str
    versions: str
    why: str
    other: str = ""
    others: str = ""

    def met(self, here: dict[str, str]) -> bool:
        """Whether these versions are here."""
        wanted = [(self.name, self.versions), *([(self.other, self.others)] if self.other else [])]
        return all(name in here and SpecifierSet(spec).contains(here[name], prereleases=True) for name, spec in wanted)


BAD = (
    Pair("onnxruntime", ">=1.30,<1.32", "it ends the process with a segmentation fault on some masks; install 1.32"),
    Pair(
        "transformers",
        ">=5",
        "transformers 5 has no TensorFlow classes; keep tf in an environment of its own",
        "tensorflow",
        ">=2",
    ),
    Pair(
        "optimum-onnx", ">=0", "no optimum-onnx takes this transformers; keep it in another environment", "transformers", ">=4.58"
    ),
)
"""Seen by us; each stands in docs/dependencies.md or in CHANGELOG.md too."""


@dataclass(frozen=True)
class Package:
    """A package of onnxfuse's own or of an extra. ``state``: tried, oldest, untried, or outside of what is wanted."""

    name: str
    version: str
    wanted: str
    state: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Missing:
    """An extra that is not installed whole: the packages it lacks, and what it is for."""

    extra: str
    purpose: str
    packages: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def packages() -> list[Package]:
    """What onnxfuse and its extras name, of what is installed."""
    return [Package(each.name, version, str(each.specifier), _state(each, version)) for each, version in _installed()]


def missing() -> list[Missing]:
    """The extras of which something is not here."""
    found = []
    for extra, purpose in FOR.items():
        lacking = tuple(each.name for each in _of(extra) if _version(each.name) is None)
        found += [Missing(extra, purpose, lacking)] if lacking else []
    return found


def bad_pairs(here: dict[str, str] | None = None) -> list[str]:
    """What is known to fail with these versions (those that are installed), for people."""
    names = {name for pair in BAD for name in (pair.name, pair.other) if name}
    seen = {name: version for name in names if (version := _version(name))} if here is None else here
    return [
        " and ".join(f"{name} {seen[name]}" for name in (pair.name, pair.other) if name) + f": {pair.why}"
        for pair in BAD
        if pair.met(seen)
    ]


def _state(each: Requirement, version: str) -> str:
    if not each.specifier.contains(version, prereleases=True):
        return "outside"
    public = version.partition("+")[0]
    if TRIED.get(each.name) == public:
        return "tried"
    return "oldest" if public in {part.version for part in each.specifier if part.operator == ">="} else "untried"


def _installed() -> Iterator[tuple[Requirement, str]]:
    """Each package that is here, once: as onnxfuse wants it, or as the first extra does that this version is for."""
    wanted: dict[str, list[Requirement]] = {}
    for each in (*_of(""), *(each for extra in FOR for each in _of(extra))):
        wanted.setdefault(each.name, []).append(each)
    for name, several in wanted.items():
        if version := _version(name):
            fitting = [each for each in several if each.specifier.contains(version, prereleases=True)]
            yield (fitting or several)[0], version


def _of(extra: str) -> list[Requirement]:
    """What an extra wants, with what the extras that it names want; "" is onnxfuse itself."""
    found = []
    for text in importlib.metadata.requires("onnxfuse") or ():
        each = Requirement(text)
        if each.marker is None if extra == "" else each.marker is not None and each.marker.evaluate({"extra": extra}):
            found += [inner for part in sorted(each.extras) for inner in _of(part)] if each.name == "onnxfuse" else [each]
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

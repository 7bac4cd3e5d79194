"""Malformed and hostile model files, and the config.json beside them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx

import onnxfuse
from attacks import bombs, configs, mutations, protos, structures
from attacks.child import Case, Command, Room
from attacks.sources import Sources

SMALL = ["--batch", "1", "--length", "8", "--rounds", "1", "--threads", "1"]
VERBS: dict[str, Sequence[str]] = {
    "optimize": ["optimize", "model.onnx", "-o", "made.onnx"],
    "quantize": ["quantize", "model.onnx", "-o", "made.onnx", "--calibration", "none"],
    "check": ["check", "model.onnx", "model.onnx"],
    "explain": ["explain", "model.onnx"],
    "benchmark": ["benchmark", "model.onnx", *SMALL],
    "load": [],
}
"""What reads a model; ``load``: onnxfuse.load and one call."""

Maker = Callable[[Path], None]
"""Lays a model.onnx, and what it wants beside it, into a folder."""


def command(verb: str) -> Command:
    return VERBS[verb] or use


def use() -> None:
    """What a program does with model.onnx; ends as a verb does."""
    answered(lambda: call(onnxfuse.load("model.onnx")))


def call(model: onnxfuse.model.Model) -> None:
    """One call, on ones."""
    import numpy as np

    sizes: dict[str | None, int] = {}
    feeds = {}
    for name, each in model.declared.items():
        shape = [size if isinstance(size, int) else sizes.setdefault(size, 2) for size in each.sizes or ()]
        feeds[name] = np.ones([min(size, 64) for size in shape], each.dtype)
    model(**feeds)


def answered(work: Callable[[], object]) -> None:
    """Run work as the command line would: an error of ours is one line and its code. Raises SystemExit."""
    import sys

    try:
        work()
    except onnxfuse.OnnxfuseError as error:
        sys.stderr.write(f"onnxfuse: {error}\n")
        raise SystemExit(error.exit_code) from None


def cases(sources: Sources, seed: int) -> list[Case]:
    """Every malformed model and config, each with every verb."""
    found = []
    for name, make in models(sources, seed):
        for verb in VERBS:
            found.append(Case("models", name, verb, _builder(make, command(verb))))
    return found


def _builder(make: Maker, wanted: Command) -> Callable[[Room], Command]:
    def build(room: Room) -> Command:
        (room.work / "config.json").write_text(json.dumps(configs.GOOD))
        make(room.work)
        return wanted

    return build


def models(sources: Sources, seed: int) -> Iterator[tuple[str, Maker]]:
    """The models by name, always in the same order."""
    base = sources.model()
    for number in range(60):
        yield f"bytes-{number}", _bytes(base, seed * 1000 + number)
    for name, data in protos.FILES.items():
        yield f"file-{name}", lambda folder, data=data: _write(folder, data)
    for name, change in {**protos.CHANGES, **structures.CHANGES}.items():
        yield f"proto-{name}", _changed(base, change)
    for name, text in bombs.texts().items():
        yield f"bomb-{name}", lambda folder, text=text: _write(folder, bombs.model(text))
    for name, node in bombs.nodes().items():
        yield f"node-{name}", lambda folder, node=node: _write(folder, node())
    for number in range(120):
        yield (
            f"mutant-{number}",
            _changed(base, lambda proto, number=number: mutations.mutate(proto, random.Random(seed * 1000 + number))),
        )
    for name, data in configs.FILES.items():
        yield f"config-{name}", _beside(base, name, data)


def _write(folder: Path, data: bytes | onnx.ModelProto) -> None:
    (folder / "model.onnx").write_bytes(data if isinstance(data, bytes) else data.SerializeToString())


def _changed(base: onnx.ModelProto, change: Callable[[onnx.ModelProto], None]) -> Maker:
    def make(folder: Path) -> None:
        proto = onnx.ModelProto()
        proto.CopyFrom(base)
        change(proto)
        _write(folder, proto)

    return make


def _beside(base: onnx.ModelProto, name: str, data: bytes) -> Maker:
    def make(folder: Path) -> None:
        _write(folder, base)
        file, _, _ = name.partition(" ")
        (folder / file).write_bytes(data)

    return make


def _bytes(base: onnx.ModelProto, seed: int) -> Maker:
    """A model cut short, with bytes changed, taken out, put in or doubled."""

    def make(folder: Path) -> None:
        rng, data = random.Random(seed), bytearray(base.SerializeToString())
        at = rng.randrange(len(data))
        for _ in range(rng.choice((1, 1, 4, 32))):
            kind, at = rng.randrange(5), rng.randrange(max(1, min(len(data), rng.choice((64, 4096, len(data))))))
            if kind == 0:
                del data[at:]
            elif kind == 1:
                data[at : at + 1] = bytes([rng.randrange(256)])
            elif kind == 2:
                del data[at : at + rng.randrange(1, 64)]
            elif kind == 3:
                data[at:at] = rng.randbytes(rng.randrange(1, 64))
            else:
                data[at:at] = data[at : at + rng.randrange(1, 256)]
        _write(folder, bytes(data))

    return make

"""What ``make fuzz`` feeds with strange bytes: each part reads them as a user's file, and may refuse them in words.

A part raises what it finds: anything but an ``OnnxfuseError``, and a ``ParityError``, which says that a rewrite was wrong.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import onnx_ir as ir
from hypothesis import strategies as st

from onnxfuse import targets
from onnxfuse.config import OptimizeConfig
from onnxfuse.errors import OnnxfuseError, ParityError
from onnxfuse.io import folders, onnx_file
from onnxfuse.optimizer import fuse
from onnxfuse.pipeline.optimize import optimize
from onnxfuse.runtime import Runner
from onnxfuse.runtime.sessions import open_session, run
from onnxfuse.verify.expected import expect
from onnxfuse.verify.grid import grid
from onnxfuse.verify.opened import Opened
from onnxfuse.verify.parity import compare
from tests.fuzz import files
from tests.fuzz.mutations import mutate_json, mutate_model
from tests.layer import LOOK_ALIKES, SPELLINGS
from tests.rewrite.graphs import Graph, graphs
from tests.rewrite.splices import Splice, judge, splices

Mutate = Callable[[bytes, random.Random], bytes]


@dataclass(frozen=True)
class Part:
    """One kind of input.

    Args:
        read: takes the bytes and an empty folder.
        seeds: valid inputs to begin with.
        mutate: makes other inputs of one; None where only libFuzzer does.
    """

    read: Callable[[bytes, Path], None]
    seeds: Callable[[], Iterable[bytes]]
    mutate: Mutate | None = None


def find(name: str, content: bytes, folder: Path) -> Exception | None:
    """What a part finds in these bytes: an error that no user must meet, or None."""
    try:
        PARTS[name].read(content, folder)
    except ParityError as error:
        return error
    except (OnnxfuseError, hypothesis.errors.UnsatisfiedAssumption):
        return None
    except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
        return error
    return None


def _target(content: bytes) -> targets.Target:
    """Each content has its target, so that all of them are met, and a finding is found again."""
    return targets.find(targets.NAMES[zlib.crc32(content) % len(targets.NAMES)])


# Models ----------------------------------------------------------------------------------------------------------


def read_model(content: bytes, folder: Path) -> None:
    """A file loaded, fused with every rewrite proven, saved and loaded again."""
    path = folder / folders.MODEL
    path.write_bytes(content)
    model = onnx_file.load(path)
    fuse(model, _target(content), prove=zlib.crc32(content) % 4 == 0)
    onnx_file.save(model, folder / folders.OPTIMIZED)


def optimize_model(content: bytes, folder: Path) -> None:
    """A file through ``optimize``: what it makes of any graph must compute the same."""
    path, out = folder / folders.MODEL, folder / folders.OPTIMIZED
    path.write_bytes(content)
    (folder / "config.json").write_text('{"max_position_embeddings": 9}')  # the grid's longest sequence
    try:
        optimize(OptimizeConfig(path, out, target=_target(content).name))
    except ParityError:
        model = onnx_file.load(path)
        fuse(model, _target(content))
        onnx_file.save(model, out)
        if _differ(path, out):
            raise


def _differ(path: Path, out: Path) -> bool:
    """Whether two models compute different things without the loader's own rewrites (some are wrong: see ``layer.ORT``).

    Not where one rounding step of each weight makes as much of a difference; numbers that stand alone are no weights.
    """
    nudged, floats = onnx_file.load(path), (ir.DataType.FLOAT, ir.DataType.FLOAT16)
    for value in nudged.graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype in floats and value.const_value.size > 1:
            array = value.const_value.numpy()
            value.const_value = ir.tensor(np.nextafter(array, array.dtype.type(np.inf)), name=value.name)
    onnx_file.save(nudged, path.with_name("nudged.onnx"))
    expected = expect(_plain(path), grid(Opened(path).profile))
    try:
        if not compare(expected, _plain(path.with_name("nudged.onnx")), "reassociate").passed:
            return False
    except ParityError:  # nothing can be compared
        return False
    return not compare(expected, _plain(out), "reassociate").passed


def _plain(path: Path) -> Runner:
    session = open_session(path, optimize=False)
    return lambda feeds: run(session, feeds)


def layers() -> Iterable[bytes]:
    """The layers that the tests fuse, as files."""
    return (ir.to_proto(case.build()).SerializeToString() for case in (*SPELLINGS, *LOOK_ALIKES))


def some_layers() -> Iterable[bytes]:
    """Some of them, where each takes a second."""
    return (ir.to_proto(case.build()).SerializeToString() for case in (*SPELLINGS[::6], *LOOK_ALIKES[::12]))


# Graphs drawn by hypothesis, whose choices are the bytes -------------------------------------------------------------


@hypothesis.settings(database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(splice=splices(), target=st.sampled_from(targets.NAMES))
def compare_splices(splice: Splice, target: str) -> None:
    """A splice of the library's own patterns, optimized, beside the original under ORT_DISABLE_ALL."""
    _require_same(splice, target)


@hypothesis.settings(database=None, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(graph=graphs(), target=st.sampled_from(targets.NAMES))
def compare_graphs(graph: Graph, target: str) -> None:
    """The same for graphs of any operators."""
    _require_same(graph, target)


def _require_same(drawn: Any, target: str) -> None:
    outcome = judge(drawn, target)
    hypothesis.assume(outcome is not None)
    assert outcome is not None
    if outcome.differs:
        raise ParityError(f"target {target}: {', '.join(outcome.differs)} differ in {drawn!r}")


def _drawn(test: Any) -> Callable[[bytes, Path], None]:
    return lambda content, folder: test.hypothesis.fuzz_one_input(content)


def noise() -> Iterable[bytes]:
    """Bytes for hypothesis to draw from: long enough for a whole graph."""
    return (random.Random(seed).randbytes(size) for seed in range(24) for size in (256, 2048))


def _after_first(mutate: Mutate) -> Mutate:
    """Mutate what stands behind the first byte."""
    return lambda content, chance: content[:1] + mutate(content[1:], chance)


PARTS: dict[str, Part] = {
    "model": Part(read_model, layers, mutate_model),
    "optimize": Part(optimize_model, some_layers, mutate_model),
    "splices": Part(_drawn(compare_splices), noise),
    "graphs": Part(_drawn(compare_graphs), noise),
    "checkpoint": Part(files.read_checkpoint, files.checkpoints, _after_first(mutate_json)),
    "data": Part(files.read_data, files.data_files, _after_first(mutate_json)),
    "record": Part(files.read_record, files.records, _after_first(mutate_json)),
}

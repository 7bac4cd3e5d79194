"""A config holds what its fields say, or is refused in one line."""

from pathlib import Path

import pytest

from onnxfuse.config import BenchmarkConfig, ExportConfig, OptimizeConfig, QuantizeConfig, Scheme, Thresholds, TuneConfig
from onnxfuse.errors import UsageError

HERE = Path("model.onnx")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BenchmarkConfig(rounds=0), "rounds is 0, wanted 1 to 1000000"),
        (lambda: BenchmarkConfig(batch=1.5), "batch is 1.5, wanted a whole number"),
        (lambda: BenchmarkConfig(batch=True), "batch is True, wanted a whole number"),
        (lambda: BenchmarkConfig(threads=-1), "threads is -1, wanted 0 to 1024"),
        (lambda: BenchmarkConfig(real=2), "real is 2, wanted 0.01 to 1"),
        (lambda: BenchmarkConfig(seconds=-1.0), "seconds is -1.0, wanted 0 to 86400.0"),
        (lambda: BenchmarkConfig(seconds=float("nan")), "seconds is nan, wanted 0 to 86400.0"),
        (lambda: TuneConfig(HERE, HERE, real=0.0), "real is 0.0, wanted 0.01 to 1"),
        (lambda: TuneConfig(HERE, HERE, runtimes="ort"), "runtimes is 'ort', wanted a tuple of texts"),
        (lambda: Thresholds(max_drop="0.5%"), "max_drop is '0.5%', wanted a number or None"),
        (lambda: Thresholds(min_cosine=float("nan")), "min_cosine is nan, wanted -1 to 1"),
        (lambda: Thresholds(min_agreement=99), "min_agreement is 99, wanted 0 to 1"),
        (lambda: Scheme(reduce_range="no"), "reduce_range is 'no', wanted True or False or None"),
        (lambda: Scheme(smooth=2.0), "--smooth 2.0: wanted auto, off, or a number from 0 to 1"),
        (lambda: Scheme(smooth="much"), "--smooth much: wanted auto, off, or a number from 0 to 1"),
        (lambda: Scheme(format="qdq"), "--format qdq is a choice of static int8; add --static, or leave it out"),
        (lambda: Scheme(ranges="entropy"), "--ranges entropy is a choice of static int8; add --static, or leave it out"),
        (lambda: OptimizeConfig(HERE, HERE, batch=0), "batch is 0, wanted 1 to 4096"),
        (lambda: OptimizeConfig(HERE, HERE, batch=1 << 62), "batch is 4611686018427387904, wanted 1 to 4096"),
        (lambda: OptimizeConfig(HERE, HERE, length=1 << 70), "length is 1180591620717411303424, wanted 1 to 131072"),
        (lambda: QuantizeConfig(HERE, HERE, batch=1 << 62), "batch is 4611686018427387904, wanted 1 to 4096"),
        (lambda: BenchmarkConfig(batch=1 << 62), "batch is 4611686018427387904, wanted 0 to 4096"),
        (lambda: TuneConfig(HERE, HERE, length=1 << 62), "length is 4611686018427387904, wanted 0 to 131072"),
        (lambda: BenchmarkConfig(rounds=1 << 62), "rounds is 4611686018427387904, wanted 1 to 1000000"),
        (lambda: OptimizeConfig(HERE, HERE, only=None), "only is None, wanted a frozenset of texts"),
        (lambda: OptimizeConfig(HERE, HERE, require=(5,)), r"require is \(5,\), wanted a tuple of texts"),
        (lambda: OptimizeConfig("model.onnx", HERE), "source is 'model.onnx', wanted a path"),
        (lambda: QuantizeConfig(HERE, HERE, scheme="static"), "scheme is 'static', wanted Scheme"),
        (lambda: ExportConfig("", HERE), "the source is an empty text, wanted a hub id, or a checkpoint's file or folder"),
        (lambda: ExportConfig("bert", HERE, opset="20"), "opset is '20', wanted a whole number or None"),
    ],
)
def test_what_a_field_does_not_hold_is_refused(make, words):
    with pytest.raises(UsageError, match=f"^{words}$"):
        make()


def test_whole_numbers_are_numbers():
    assert (Scheme(smooth=1).smooth, Thresholds(min_cosine=1).min_cosine, BenchmarkConfig(real=1).real) == (1, 1, 1)

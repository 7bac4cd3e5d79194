"""What ``make fuzz`` runs: its judges see what is broken, its mutations are what they say, and what it once found stays mended."""

import random
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from onnxfuse.runtime.sessions import open_session, run
from tests.conftest import ops, parse
from tests.fuzz import parts
from tests.fuzz.mutations import mutate_json, mutate_model
from tests.rewrite import splices

CORPUS = Path(__file__).parent / "corpus"
KEPT = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_is_mended(path, tmp_path):
    assert parts.find(path.parent.name, path.read_bytes(), tmp_path) is None


@pytest.mark.parametrize("name", ["checkpoint", "data", "record"])
def test_the_seeds_of_files_are_read(name, tmp_path):
    seeds = list(parts.PARTS[name].seeds())
    for number, seed in enumerate(seeds):
        folder = tmp_path / str(number)
        folder.mkdir()
        parts.PARTS[name].read(seed, folder)  # refuses none
    assert seeds and all(any((tmp_path / str(number)).iterdir()) for number in range(len(seeds)))


def test_the_first_layers_are_optimized(tmp_path):
    for number, seed in enumerate(list(parts.layers())[:2]):
        folder = tmp_path / str(number)
        folder.mkdir()
        parts.read_model(seed, folder)
        assert (folder / "model_optimized.onnx").is_file()


def test_an_error_that_no_user_must_meet_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(parts, "fuse", lambda *_, **__: 1 // 0)
    assert isinstance(parts.find("model", next(iter(parts.layers())), tmp_path), ZeroDivisionError)


def test_what_is_refused_in_words_is_no_finding(tmp_path):
    assert parts.find("model", b"no model", tmp_path) is None


def test_a_wrong_rewrite_is_found_in_drawn_graphs(monkeypatch):
    def spoil(model, target):
        for node in model.graph:
            node.op_type = "Erf" if node.op_type == "Tanh" else node.op_type

    monkeypatch.setattr(splices, "fuse", spoil)
    found = [parts.find("graphs", seed, Path()) for seed in parts.noise()]
    assert any(isinstance(error, parts.ParityError) for error in found)


def test_a_wrong_rewrite_is_found_in_files(tmp_path):
    """Two models that differ, and one that rounding decides of."""
    text = "g (float[B,4] x) => (float[B,4] y) <float[4] w = {1.0, 2.0, 3.0, 4.0}> { a = Mul(x, w)  y = %s(a) }"
    tanh, erf = (tmp_path / f"{name}.onnx" for name in ("tanh", "erf"))
    for path, op in ((tanh, "Tanh"), (erf, "Erf")):
        onnx.save(ir.to_proto(parse(text % op)), path)
    assert parts._differ(tanh, erf)
    assert not parts._differ(tanh, tanh)


def test_what_rounding_decides_is_no_finding(tmp_path):
    """The sine of a large number: one step of the weight is half a turn."""
    text = "g (float[B,2] x) => (float[B,2] y) <float[2] w = {8388609.5, 3.0}> { a = Mul(x, w)  b = Sin(a)  y = %s(b) }"
    sharp, other = (tmp_path / f"{name}.onnx" for name in ("sharp", "other"))
    for path, op in ((sharp, "Identity"), (other, "Neg")):
        onnx.save(ir.to_proto(parse(text % op)), path)
    assert not parts._differ(sharp, other)


def test_mutations_parse_and_differ():
    seed = next(iter(parts.layers()))
    made = [mutate_model(seed, random.Random(number)) for number in range(200)]
    assert all(onnx.ModelProto.FromString(content).ByteSize() for content in made)
    assert len(set(made)) > 150
    assert made[7] == mutate_model(seed, random.Random(7))
    assert mutate_model(b"no model", random.Random(0)) == b"no model"


def test_json_mutations_differ():
    made = {mutate_json(b'{"a": [1, 2], "b": {"c": "d"}}', random.Random(number)) for number in range(100)}
    assert len(made) > 50


def test_drawn_graphs_mostly_run():
    """A graph that ONNX Runtime refuses tests nothing."""
    ran = []

    @parts.hypothesis.settings(max_examples=40, database=None, deadline=None)
    @parts.hypothesis.seed(1)
    @parts.hypothesis.given(parts.graphs())
    def draw(graph):
        model = graph.build()
        ran.append(len(ops(model)))
        assert run(open_session(ir.to_proto(model).SerializeToString(), optimize=False), graph.feeds())

    draw()
    assert max(ran) > 10


def test_every_part_has_its_share_of_the_time():
    script = (Path(__file__).parents[2] / "scripts" / "fuzz.py").read_text()
    shares = script.partition("\nPARTS = {")[2].partition("}")[0]
    assert {name.strip('" ') for name in (pair.split(":")[0] for pair in shares.split(","))} == set(parts.PARTS)

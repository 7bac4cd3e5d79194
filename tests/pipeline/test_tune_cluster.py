"""Alternatives that are measured on the nodes of a cluster, as many at a time as there are nodes."""

import json

import pytest

from onnxfuse import cluster as spreading
from onnxfuse import targets
from onnxfuse.cluster import Cluster
from onnxfuse.config import TuneConfig
from onnxfuse.errors import UsageError
from onnxfuse.io.progress import silent
from onnxfuse.measure.benchmark import Ratio
from onnxfuse.measure.machine import Machine, here
from onnxfuse.pipeline import tune, tune_spread
from onnxfuse.pipeline.alternatives import chosen_with
from onnxfuse.pipeline.trials import Trial
from onnxfuse.pipeline.tune_measure import NOISE
from tests.cli.test_cli import expect_one_line
from tests.nodes import cluster  # noqa: F401 - a fixture

pytest.importorskip("ray", reason="the extra ray is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # Ray's own, of its settings

THINGS = [
    ("residual", ("Sum", "Add", "SkipLayerNormalization")),
    ("denormals_as_zero", ("True", "False")),
    ("spinning", ("True", "False")),
]


def plan(bert_export, tmp_path, **options):
    return TuneConfig(
        bert_export / "export" / "model.onnx", tmp_path / "mine.json", batch=1, length=8, rounds=1, threads=1, **options
    )


@pytest.fixture
def calls(monkeypatch):
    """What goes to the cluster, call by call: the pieces' things and options."""
    seen, spread = [], spreading.Driver.spread

    def counted(self, make, given, *others):
        seen.append([(piece.thing, piece.option) for piece in given])
        return spread(self, make, given, *others)

    monkeypatch.setattr(spreading.Driver, "spread", counted)
    return seen


def test_two_nodes_measure_every_alternative(bert_export, tmp_path, monkeypatch, cluster, calls):  # noqa: F811
    monkeypatch.setattr(tune, "alternatives", lambda base, plan, cores: THINGS)
    found = tune.tune(plan(bert_export, tmp_path), where=Cluster(cluster.address))
    by_thing = {thing: [trial.option for trial in found.trials if trial.thing == thing] for thing, _ in THINGS}
    for thing, options in THINGS:
        assert by_thing[thing].count(NOISE) <= 1 and {*by_thing[thing]} - {NOISE} < {*options}, by_thing
    assert all(trial.refused or trial.speed for trial in found.trials)
    assert found.target.measured["machine"] == here().cpu and found.target.measured["cores"] == here().cores
    assert targets.find(str(tmp_path / "mine.json")).chosen == found.target.chosen
    assert len(calls[0]) == len(calls[1]) == 2, calls  # no node waits while there is more to measure


def test_what_is_measured_ahead_counts_while_the_choice_stays(bert_export, tmp_path, cluster, calls):  # noqa: F811
    base = targets.find("cpu")
    where = Cluster(cluster.address)
    with tune_spread.like(where) as (driver, on, nodes):
        assert (on, nodes) == (here(), 2)
        spread = tune_spread.Spread(plan(bert_export, tmp_path), where, driver, on, nodes, silent)
        variants = {option: chosen_with(base, "spinning", option) for option in ("True", "False")}
        first = spread.measure("spinning", base, variants, THINGS[1:2])
        assert calls == [[("spinning", "False" if base.session.spinning else "True"), ("denormals_as_zero", calls[0][1][1])]]
        assert [trial.thing for trial in first] == ["spinning"] * 2 and first[0].option == NOISE
        other = chosen_with(base, "denormals_as_zero", calls[0][1][1])
        ahead = spread.measure("denormals_as_zero", base, {"it": other}, ())
        assert len(calls) == 1 and [trial.option for trial in ahead] == [NOISE, calls[0][1][1]]
        spread.measure(
            "spinning",
            other,
            {"True": chosen_with(other, "spinning", "True"), "False": chosen_with(other, "spinning", "False")},
            (),
        )
        assert len(calls) == 2  # beside another choice it is measured again


def test_the_widest_noise_of_all_nodes_counts():
    def noise(high):
        return Trial("gelu", NOISE, 1.0, Ratio(1.0, 0.9, high))

    trials = [noise(1.02), Trial("gelu", "b", 1.0, Ratio(1.1, 1.03, 1.2)), noise(1.04), Trial("gelu", "a", refused="no")]
    joined = tune_spread._joined(trials, ["a", "b"])
    assert [trial.option for trial in joined] == [NOISE, "a", "b"] and joined[0].speed.high == 1.04
    assert tune.best(joined) == ""


def test_nodes_that_differ_are_refused(monkeypatch):
    monkeypatch.setattr(tune_spread, "here", lambda: Machine("another kind", 3))
    make = tune_spread.maker
    with pytest.raises(UsageError, match="a node of another kind \\(3 cores of another kind\\) came to the cluster"):
        make(None, here(), 1)


def own_name():
    import ray

    return ray.get_runtime_context().get_node_id()


def own_kind():
    """As if each node had as many cores as its name has of some letter."""
    return Machine("a kind", own_name().count("a"))


def test_nodes_of_several_kinds_are_refused(cluster, monkeypatch):  # noqa: F811
    """The nodes themselves are asked."""
    where = Cluster(cluster.address)
    with spreading.connected(where) as driver:
        names = driver.on_each_node(own_name)
    assert len(set(names)) == 2
    monkeypatch.setattr(tune_spread, "here", own_kind)
    counts = [name.count("a") for name in names]
    likeness = tune_spread.like(where)
    if len(set(counts)) == 1:
        with likeness as (_, on, nodes):
            assert on == Machine("a kind", counts[0]) and nodes == 2
    else:
        with (
            pytest.raises(UsageError, match=r"nodes differ \(1 of \d+ cores of a kind; 1 of \d+ cores of a kind\); give it"),
            likeness,
        ):
            pass


def test_from_the_command_line_on_one_machine(cli, bert_export, tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "alternatives", lambda base, plan, cores: THINGS[2:])
    options = ("--length", 8, "--batch", 1, "--rounds", 1, "--threads", 1, "-o", tmp_path / "t.json")
    expect_one_line(cli("tune", bert_export / "export", *options, "--actors", 2), 2, "--actors 2 is of --engine ray; add that")
    expect_one_line(
        cli("tune", bert_export / "export", *options, "--engine", "ray", "--address", "127.0.0.1:1"),
        2,
        "--address 127.0.0.1:1: no cluster of Ray can be reached",
    )
    result = cli("tune", bert_export / "export", *options, "--engine", "ray", "--json")
    assert result.returncode == 0, result.stderr
    target = json.loads(result.stdout)["target"]
    assert target["measured"]["trials"][0]["option"] == NOISE
    assert targets.find(str(tmp_path / "t.json")).name == "t"

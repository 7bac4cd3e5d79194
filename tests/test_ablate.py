"""The ablation: every rewrite alone and left out, each with its own count, error and time."""

import json

import pytest

from onnxfuse import BenchmarkPlan, ablate
from onnxfuse.targets import find


@pytest.fixture(scope="module")
def results(bert_export):
    return {r.name: r for r in ablate.ablate(bert_export / "export" / "model.onnx", "cpu", BenchmarkPlan(length=8, rounds=2))}


def test_every_rewrite_is_there_alone_and_left_out(results):
    names = [variant.name for variant in ablate.variants(find("cpu"))]
    assert list(results) == names
    for name in ("merge-linears", "attention", "gelu", "layer-norm", "position-embeddings", "pooled-token", "residual-sum"):
        assert {f"{name} alone", f"all but {name}"} <= set(names)
    assert {"none", "normal form", "bias-in-linear alone", "all but division-to-multiplication", "all but remove-dropout", "all"} <= set(names)


def test_what_was_made_shows_in_the_graph(results):
    assert (results["none"].rewrites, results["none"].error) == (0, 0)
    assert results["attention alone"].nodes < results["normal form"].nodes - 10
    assert results["all but attention"].nodes > results["all"].nodes + 10
    assert results["merge-linears alone"].nodes == results["normal form"].nodes - 6 + 3  # a layer: 3 + 3 become 1 + 1 + 1; the mask widened
    assert results["bias-in-linear alone"].rewrites > results["normal form"].rewrites
    assert all(result.error <= 1e-5 for result in results.values())
    assert all(result.timing.p50 > 0 and result.speed.low <= result.speed.value <= result.speed.high for result in results.values())


def test_the_command_and_the_plot(cli, bert_export, tmp_path):
    result = cli("ablate", bert_export / "export", "--length", 8, "--rounds", 1, "--json", "--plot", "ablation.svg")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer[0]["name"] == "none"
    assert answer[-1]["name"] == "all"
    drawn = (tmp_path / "ablation.svg").read_text()
    assert "<svg" in drawn
    assert all(entry["name"] in drawn for entry in answer)

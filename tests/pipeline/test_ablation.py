"""The ablation: every rewrite alone and left out, each with its own count, error and time."""

import json

from onnxfuse.pipeline import ablation
from onnxfuse.targets import find
from tests.marks import OTHERS


@OTHERS
def test_every_rewrite_alone_and_left_out(cli, bert_export, tmp_path):
    result = cli("ablate", bert_export / "export", "--length", 8, "--rounds", 1, "--json", "--plot", "ablation.svg")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)["results"]
    names = [variant.name for variant in ablation.variants(find("cpu"))]
    assert [entry["name"] for entry in answer] == names
    for name in ("merge-linears", "attention", "gelu", "layer-norm", "position-embeddings", "pooled-token", "residual-sum"):
        assert {f"{name} alone", f"all but {name}"} <= set(names)
    assert {
        "none",
        "normal form",
        "bias-in-linear alone",
        "all but division-to-multiplication",
        "all but remove-dropout",
        "all but unpad",
        "all",
    } <= set(names)

    made, nodes, errors = ({entry["name"]: entry[key] for entry in answer} for key in ("rewrites", "nodes", "error"))
    assert (made["none"], errors["none"]) == (0, 0)
    assert nodes["attention alone"] < nodes["normal form"] - 10
    assert nodes["all but attention"] > nodes["all but unpad"] + 10
    assert nodes["all"] > nodes["all but unpad"]  # the indices of the real tokens
    # a layer: 3 + 3 become 1 + 1 + 1, and the keys are transposed in two steps
    assert nodes["merge-linears alone"] == nodes["normal form"] - 6 + 2
    assert made["bias-in-linear alone"] > made["normal form"]
    assert max(errors.values()) <= 1e-5
    assert all(entry["latency"]["p50"] > 0 and entry["speed"]["low"] <= entry["speed"]["high"] for entry in answer)

    drawn = (tmp_path / "ablation.svg").read_text()
    assert "<svg" in drawn
    assert all(name in drawn for name in names)

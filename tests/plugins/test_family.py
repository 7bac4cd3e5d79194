"""A family from one file outside the package: exported, optimized and counted as ours are."""

import json

import pytest

from onnxfuse import plugins
from onnxfuse.config import ExportConfig
from onnxfuse.pipeline.export import export
from tests.conftest import messages
from tests.plugins.conftest import small_checkpoint

ERNIE = '''
"""ERNIE: BERT, trained otherwise."""

from onnxfuse.architecture import TEXT_TASKS, TOKENS, Architecture, Count

ERNIE = Architecture(
    model_type="ernie",
    inputs={"input_ids": TOKENS, "attention_mask": TOKENS, "token_type_ids": TOKENS},
    layers="num_hidden_layers",
    tasks=TEXT_TASKS,
    counts={"attention": Count(1), "qkv": Count(1), "layer_norm": Count(2, 1), "gelu": Count(1)},
    heads={"fill-mask": {"layer_norm": 1, "gelu": 1}},
    checkpoints={"nghuyong/ernie-1.0-base-zh": {}},
)
'''


@pytest.fixture
def ernie(tmp_path, monkeypatch):
    """A folder with its file, and nothing else."""
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / "ernie.py").write_text(ERNIE)
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "families"))


def test_it_is_exported_optimized_and_counted(ernie, cli, tmp_path):
    small_checkpoint("Ernie", tmp_path / "checkpoint")
    assert cli("export", "checkpoint", "--exporter", "torchscript", "-o", "out").returncode == 0
    result = cli("optimize", "out", "--require", "all", "--json")
    assert result.returncode == 0, result.stderr
    details = json.loads(result.stdout)
    assert details["model_type"] == "ernie"
    wanted = {"attention": 2, "qkv": 2, "layer_norm": 5, "gelu": 2}
    assert details["expected"] == wanted
    assert {name: details["fused"][name] for name in wanted} == wanted
    assert details["fused"]["unfused"] == 0


def test_without_its_file_it_is_refused_by_name(cli, tmp_path):
    small_checkpoint("Ernie", tmp_path / "checkpoint")
    result = cli("export", "checkpoint")
    assert result.returncode == 3
    assert "model type 'ernie' is not supported (modernbert is near); onnxfuse knows albert, bert, camembert, " in result.stderr


def test_it_is_named_among_those_known(ernie, cli):
    result = cli("export", "no-such-model", "--random-weights")
    assert result.returncode == 2
    assert "nghuyong/ernie-1.0-base-zh" in result.stderr


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        (
            "TEXT_TASKS,\n",
            "{'my-task': 'AutoModel'},\n",
            "UsageError: family ernie has task 'my-task', wanted some of feature-extraction",
        ),
        ('"gelu": Count(1)', '"gelu": 1', "UsageError: family ernie counts gelu by 1, wanted a Count(layer, once)"),
    ],
)
def test_a_faulty_one_is_named(tmp_path, monkeypatch, right, wrong, words, cli):
    (tmp_path / "ernie.py").write_text(ERNIE.replace(right, wrong))
    monkeypatch.setenv(plugins.VARIABLE, str(tmp_path / "ernie.py"))
    result = cli("export", "nghuyong/ernie-1.0-base-zh", "--random-weights", "-o", "out")
    assert result.returncode == 2, result.stderr
    assert words in messages(result.stderr)[0]


def test_a_whole_run_needs_its_file_alone(ernie, cli, tmp_path):
    small_checkpoint("Ernie", tmp_path / "checkpoint")
    run = ("run", "checkpoint", "-o", "out", "--exporter", "torchscript", "--rounds", "1", "--length", "8")
    result = cli(*run, "--require", "all", "--json")
    assert result.returncode == 0, result.stderr
    made = json.loads(result.stdout)
    assert made["optimize"]["padding"] == "removed"
    assert all(row["parity"]["passed"] for row in made["results"][1:])
    assert cli(*run, "--require", "gelu=7").returncode == 6


@pytest.fixture(scope="session")
def unknown(tmp_path_factory):
    """A folder with an export of a family that nobody has a file for any more."""
    folder = tmp_path_factory.mktemp("unknown")
    with pytest.MonkeyPatch.context() as patch:
        (folder / "ernie.py").write_text(ERNIE)
        patch.setenv(plugins.VARIABLE, str(folder / "ernie.py"))
        small_checkpoint("Ernie", folder / "checkpoint")
        export(ExportConfig(str(folder / "checkpoint"), folder / "out", exporter="torchscript"))
    return folder / "out"


def test_a_graph_of_an_unknown_family_is_fused_by_what_it_shows(unknown, cli):
    result = cli("optimize", unknown, "-o", "o.onnx", "--require", "attention=2", "--json")
    assert result.returncode == 0, result.stderr
    assert "going by what the graph shows: model type 'ernie' is none that onnxfuse knows" in result.stderr
    step = json.loads(result.stdout)
    assert (step["model_type"], step["expected"], step["padding"]) == ("ernie", {}, "removed")
    assert [step["fused"][name] for name in ("attention", "qkv", "layer_norm", "gelu")] == [2, 2, 5, 2]
    assert cli("quantize", "o.onnx", "-o", "q.onnx").returncode == 0
    assert cli("explain", unknown).returncode == 0


def test_counts_of_an_unknown_family_cannot_be_required(unknown, cli):
    result = cli("optimize", unknown, "-o", "o.onnx", "--require", "all")
    assert result.returncode == 2
    assert "--require all: onnxfuse has no counts of model type 'ernie'; say which family's with --model-type" in result.stderr
    assert cli("optimize", unknown, "-o", "o.onnx", "--require", "all", "--model-type", "bert").returncode == 0


def test_export_of_an_unknown_family_says_how_to_go_on(cli, tmp_path):
    small_checkpoint("Ernie", tmp_path / "checkpoint")
    result = cli("export", "checkpoint")
    assert result.returncode == 3
    assert "(modernbert is near)" in result.stderr
    assert "an .onnx file of such a model, whoever wrote it, fuses all the same: onnxfuse optimize" in result.stderr

"""The command line as a user meets it: results on stdout, one line for every error, documented exit codes."""

import importlib.metadata
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from tests.cli import documented
from tests.conftest import HANGS, fill, messages, parse, small_model

MODELS = ("model.onnx", "model_optimized.onnx", "model_quantized.onnx")


def expect_one_line(result, code: int, *words: str) -> None:
    assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
    lines = messages(result.stderr)
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("onnxfuse: ")
    for word in words:
        assert word in lines[0]


def test_optimize_quantize_check_and_benchmark_a_folder(cli, bert_export, tmp_path):
    folder = tmp_path / "onnx" / "model"
    folder.mkdir(parents=True)
    for name in ("model.onnx", "config.json"):
        (folder / name).write_bytes((bert_export / "export" / name).read_bytes())
    result = cli("optimize", "--model-type", "bert")
    assert result.returncode == 0, result.stderr
    assert "onnx/model/model.onnx (bert) for target cpu" in result.stdout
    assert "attention 2/2, gelu 2/2, layer_norm 5/5, qkv 2/2" in result.stdout
    result = cli("quantize", "--dynamic", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["matmuls"] == 9
    documented.require("quantize", json.loads(result.stdout))
    assert (folder / "model_quantized.onnx").is_file()
    result = cli("check", folder, folder / "model_optimized.onnx")
    assert result.returncode == 0
    assert "equal within 'reassociate' on 12 inputs" in result.stdout
    result = cli("check", folder, folder / "model_quantized.onnx", "--json")
    expect_one_line(result, 5, "model_quantized.onnx differs", "allowed 1e-05")
    answer = json.loads(result.stdout)  # one object: the result, and what is wrong
    documented.require("check", answer)
    assert answer["parity"]["passed"] is False
    assert answer["error"]["message"] == result.stderr.splitlines()[-1].removeprefix("onnxfuse: ")
    result = cli("benchmark", folder, "--length", 8, "--rounds", 2, "--threads", 2, "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    documented.require("benchmark", answer)
    assert [row["path"] for row in answer["results"]] == [str(folder / name) for name in MODELS]
    for row in answer["results"]:
        timing = row["latency"]
        assert 0 < timing["low"] <= timing["p50"] <= timing["high"]
        assert timing["p50"] <= timing["p90"] <= timing["p99"]
        assert row["size"] > 0
        assert row["peak_memory"] > 0
    assert answer["results"][0]["speed"] == {"value": 1.0, "low": 1.0, "high": 1.0}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["optimise"], "No such command 'optimise'. Did you mean 'optimize'? See: onnxfuse --help"),
        (["check", "a.onnx"], "Missing argument 'second'; see: onnxfuse check --help"),
        (["view", "--form", "x"], "No such option: --form"),
        (["benchmark", "a.onnx", "--rounds", "many"], "parse string as an integer; see: onnxfuse benchmark --help"),
    ],
)
def test_wrong_usage_says_where_to_look(cli, arguments, words):
    result = cli(*arguments)
    expect_one_line(result, 2, words)
    assert " is called " not in result.stderr
    assert result.stderr.strip().endswith("--help")


def test_export_a_folder(process, bert_export, tmp_path):
    result = process("export", bert_export / "checkpoint", "--exporter", "torchscript", "--task", "feature-extraction")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "onnx" / "checkpoint" / "model.onnx").is_file()
    assert "parity: max diff" in result.stdout


def test_missing_paths(cli):
    expect_one_line(cli("optimize", "nowhere"), 2, "nowhere is not there")
    expect_one_line(cli("optimize", "nowhere.onnx"), 2, "nowhere.onnx is not there", "folder that holds model.onnx")
    expect_one_line(cli("optimize"), 2, "no model.onnx", "onnxfuse export NAME")
    expect_one_line(cli("export", "./nowhere"), 2, "./nowhere is not there")
    expect_one_line(cli("check", "a.onnx", "b.onnx"), 2, "a.onnx is not there")


@pytest.mark.parametrize("name", ["a b", "nope*", "./nope", "a/b/c"])
def test_a_checkpoint_that_is_not_there(cli, name):
    expect_one_line(cli("export", name), 2, f"{name} is not there; give a checkpoint's folder or a hub id")


def test_a_length_beyond_the_positions_of_a_model(cli, bert_export, tmp_path):
    source = bert_export / "export"
    positions = json.loads((source / "config.json").read_text())["max_position_embeddings"]
    told = f"--length {positions + 1}: the model has positions for {positions} tokens"
    for verb in ("benchmark", "ablate", "tune", "optimize"):
        expect_one_line(
            cli(verb, source, "--length", positions + 1, *(["-o", tmp_path / "out"] if verb in ("tune", "optimize") else [])),
            2,
            told,
        )
    assert not list(tmp_path.iterdir())
    said = cli("benchmark", source / "model.onnx", "--rounds", 1)
    assert said.returncode == 0, said.stderr
    assert f"batch 1, length {min(positions, 128)}, " in said.stdout


@pytest.mark.parametrize("verb", ["export", "run"])
def test_an_export_is_a_folder(cli, tmp_path, verb):
    (tmp_path / "there").write_text("mine")
    for name in ("m.onnx", "m.tflite", "there"):
        expect_one_line(cli(verb, "bert-base-cased", "--random-weights", "-o", name), 2, f"-o {name}: an export is a folder")
    assert (tmp_path / "there").read_text() == "mine"


def test_wrong_usage(cli):
    expect_one_line(cli("optimise"), 2, "optimise")
    expect_one_line(cli("optimize", "--no-such-option"), 2, "--no-such-option")
    expect_one_line(cli("export", "bert-tiny-unheard-of", "--random-weights"), 2, "knows no architecture", "bert-base-cased")
    expect_one_line(cli("export", "bert-base-cased", "--random-weights", "--task", "poetry"), 2, "no task 'poetry'", "fill-mask")
    expect_one_line(cli("export", "bert-base-cased", "--random-weights", "--exporter", "magic"), 2, "no exporter named 'magic'")


def test_a_text_file_named_onnx(cli, tmp_path):
    (tmp_path / "text.onnx").write_text("not a model\n" * 100)
    for verb in ("optimize", "quantize", "benchmark"):
        expect_one_line(cli(verb, "text.onnx"), 3, "text.onnx", "not")


def test_a_truncated_model(cli, tmp_path, bert_export):
    whole = (bert_export / "export" / "model.onnx").read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) * 2 // 3])
    expect_one_line(cli("optimize", "cut.onnx"), 3, "cut.onnx is not a whole ONNX model")
    assert [p.name for p in tmp_path.iterdir()] == ["cut.onnx"]


def test_an_unsupported_architecture(cli, tmp_path):
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    expect_one_line(cli("export", "gpt"), 3, "'gpt2' is not supported", "albert, bert, camembert, ")
    proto = ir.to_proto(fill(parse("g (float[B,4] x, float[4,4] w) => (float[B,4] y) { y = MatMul(x, w) }"), w=(4, 4)))
    onnx.save(proto, tmp_path / "gpt" / "model.onnx")
    result = cli("optimize", "gpt", "--verify", "off")  # a graph is taken for what it shows
    assert result.returncode == 0 and "gpt2" in result.stdout + result.stderr


def test_an_output_that_equals_the_input(cli, tmp_path, bert_export):
    (tmp_path / "model.onnx").write_bytes((bert_export / "export" / "model.onnx").read_bytes())
    before = (tmp_path / "model.onnx").read_bytes()
    expect_one_line(cli("optimize", "model.onnx", "-o", "./model.onnx"), 2, "is the input itself")
    (tmp_path / "link.onnx").symlink_to("model.onnx")
    expect_one_line(cli("optimize", "model.onnx", "-o", "link.onnx"), 2, "is the input itself")
    assert (tmp_path / "model.onnx").read_bytes() == before


def test_an_unknown_hub_id_offline(process):
    expect_one_line(process("export", "nobody/has-this-model"), 4, "cannot load 'nobody/has-this-model'", "--random-weights")


def test_a_checkpoint_without_weights_or_with_pickled_ones(cli, tmp_path, bert_export):
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "config.json").write_bytes((bert_export / "checkpoint" / "config.json").read_bytes())
    expect_one_line(cli("export", "broken"), 4, "cannot load the checkpoint in broken")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    expect_one_line(cli("export", "broken"), 4, "cannot load the checkpoint in broken", "safetensors")
    (folder / "config.json").write_text("{")
    expect_one_line(cli("export", "broken"), 3, "config.json")


def test_requirements(cli, bert_export, tmp_path):
    expect_one_line(cli("optimize", bert_export / "export", "-o", tmp_path, "--require", "attention=12"), 6, "required 12")
    expect_one_line(cli("optimize", bert_export / "export", "-o", tmp_path, "--require", "sense"), 2, "--require sense")
    assert not list(tmp_path.iterdir())


def test_an_opset_above_the_target(cli, tmp_path):
    proto = ir.to_proto(fill(parse("g (float[B,4] x, float[4,4] w) => (float[B,4] y) { y = MatMul(x, w) }"), w=(4, 4)))
    onnx.save(proto, tmp_path / "new.onnx")
    expect_one_line(cli("optimize", "new.onnx", "--target", "standard"), 2, "opset 23", "--opset 20")
    expect_one_line(cli("optimize", "new.onnx", "--target", "abacus"), 2, "no target named 'abacus'")


def test_a_missing_extra(process, tmp_path):
    for name in ("torch", "netron"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('not installed')")
    proto = ir.to_proto(fill(parse("g (float[B,4] x, float[4,4] w) => (float[B,4] y) { y = MatMul(x, w) }"), w=(4, 4)))
    onnx.save(proto, tmp_path / "model.onnx")
    expect_one_line(process("export", "bert-base-cased", "--random-weights"), 7, "onnxfuse[torch]")
    expect_one_line(process("view", "model.onnx", "--no-browser"), 7, "onnxfuse[view]")


def test_debug_adds_the_traceback(process):
    result = process("optimize", "nowhere", "--debug")
    assert result.returncode == 2
    assert "Traceback" in result.stderr


def test_view_serves_the_graph_until_ctrl_c(start, tmp_path):
    proto = ir.to_proto(fill(parse("g (float[B,4] x, float[4,4] w) => (float[B,4] y) { y = MatMul(x, w) }"), w=(4, 4)))
    onnx.save(proto, tmp_path / "model.onnx")
    process = start("-m", "onnxfuse", "view", "model.onnx", "--no-browser")
    address = process.stdout.readline().strip()
    assert address.startswith("http://localhost:")
    with urllib.request.urlopen(address, timeout=HANGS) as page:
        assert b"netron" in page.read().lower()
    with urllib.request.urlopen(f"{address}/data/model.onnx", timeout=HANGS) as data:
        assert data.read() == (tmp_path / "model.onnx").read_bytes()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=HANGS)
    assert process.returncode in (0, 130)  # before or after the server's own wait began


@pytest.mark.parametrize("verb", ["", "export", "optimize", "quantize", "check", "benchmark", "view", "run"])
def test_help(process, verb):
    result = process(*([verb] if verb else []), "--help")
    assert result.returncode == 0
    assert "Usage" in result.stdout


def test_run_a_folder(cli, tmp_path):
    small_model("distilbert", "AutoModelForMaskedLM", layers=1).save_pretrained(tmp_path / "checkpoint")
    result = cli("run", Path("checkpoint"), "--exporter", "torchscript", "-o", "all", "--length", 8, "--rounds", 1)
    assert result.returncode == 0, result.stderr
    assert "speed-up" in result.stdout
    assert "attention 1/1" in result.stdout
    record = json.loads((tmp_path / "all" / "onnxfuse.json").read_text())
    assert ".onnxfuse-" not in json.dumps(record), "it names where files were made, which is gone"
    assert record["optimize"]["fused"]["attention"] == 1
    assert (tmp_path / "all" / "model_quantized.onnx").is_file()


def test_run_a_checkpoint_that_is_too_small_to_quantize(cli, tmp_path):
    """It ends with its table, which says so; a log gets a line for each phase, and stdout the result alone."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.DistilBertConfig(
        vocab_size=90, dim=32, n_heads=2, n_layers=1, hidden_dim=64, max_position_embeddings=16
    )
    transformers.DistilBertForSequenceClassification(config).save_pretrained(tmp_path / "tiny")
    command = ("run", Path("tiny"), "--exporter", "torchscript", "-o", "all", "--length", 8, "--rounds", 1)
    result = cli(*command)
    assert result.returncode == 0, result.stderr
    assert "int8: nothing in the model" in result.stdout
    assert "16384 numbers or more" in result.stdout
    assert not any(line.split("\u2502")[1:2] == [" int8 "] for line in result.stdout.splitlines())
    assert f"torch {importlib.metadata.version('torch')}" in result.stdout.partition("made with ")[2]
    assert not (tmp_path / "all" / "model_quantized.onnx").exists()
    phases = result.stderr.splitlines()
    assert all(line.startswith("  ") for line in phases), result.stderr
    assert len(phases) == len(set(phases)) > 3
    (tmp_path / "all" / "model_quantized.onnx").write_bytes(b"old")
    expect_one_line(cli(*command), 2, "model_quantized.onnx is there, and onnxfuse did not make it", "--overwrite")
    answer = json.loads(cli(*command, "--overwrite", "--json").stdout)
    assert "is worth quantizing" in answer["quantize"]["skipped"]
    assert "model_quantized.onnx is of an earlier run" in answer["quantize"]["skipped"]
    assert [row["name"] for row in answer["results"]][:3] == ["PyTorch", "ONNX", "optimized"]
    assert [row["parity"] is None for row in answer["results"]][:3] == [True, False, False]
    assert answer["static"] == {"skipped": "nothing is int8"}
    assert answer["fastest"]["file"] == "model_optimized.onnx"
    documented.require("run", answer)


def test_onnx_runtimes_own_log_stays_out(process, cli, tmp_path):
    """What it says of a model that fails comes once, in one line."""
    text = "g (float[B,3] x) => (float[B,3] y) <int64[2] s = {7,7}> { r = Reshape(x, s)  y = Reshape(r, s) }"
    onnx.save(ir.to_proto(parse(text)), tmp_path / "model.onnx")
    for run in (("check", "model.onnx", "model.onnx"), ("optimize", "model.onnx", "--model-type", "bert")):
        expect_one_line(process(*run), 3, "cannot run model.onnx on x [1, 3]", "put its config.json beside it")
    expect_one_line(cli("benchmark", "model.onnx"), 3, "measured: ONNX Runtime", "cannot run model.onnx on x [1, 3]")
    (tmp_path / "config.json").write_text("{}")
    assert "put its config.json" not in cli("check", "model.onnx", "model.onnx").stderr


def test_help_imports_nothing_that_works_on_models():
    code = "import sys, onnxfuse.cli.app; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert not {"numpy", "onnx", "onnx_ir", "onnxruntime", "torch", "transformers", "openvino"} & set(loaded.stdout.split())


IMPORTED = """if True:
    import signal, sys
    from onnxfuse.__main__ import run

    class Importing:
        def __getattr__(self, name):
            if name == "main":
                signal.raise_signal({sent})
            raise AttributeError(name)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background ignores it
    sys.modules["onnxfuse.cli.app"] = Importing()
    run()
"""


@pytest.mark.parametrize(("sent", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_a_signal_while_the_program_is_imported(sent, code, word):
    """In a process of its own: libraries that other tests load may have handlers of theirs."""
    command = [sys.executable, "-c", IMPORTED.format(sent=int(sent))]
    ended = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr == f"onnxfuse: {word}; no file is half-written; nothing was saved\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["export", ""], "an argument is an empty text; give it a value"),
        (["optimize", ""], "an argument is an empty text; give it a value"),
        (["optimize", "model.onnx", "-o", ""], "an argument is an empty text, after -o"),
        (["benchmark", "model.onnx", "--output="], "an argument is an empty text, after --output"),
    ],
)
def test_an_empty_text_is_no_path(cli, tmp_path, arguments, words):
    expect_one_line(cli(*arguments), 2, words)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("there", "there is no folder"),
        ("there/sub", "there is no folder"),
        ("/dev/null", "/dev/null is no folder"),
        ("dangling", "dangling is a link to what is not there"),
        ("dangling/a.onnx", "dangling is a link to what is not there"),
    ],
)
@pytest.mark.parametrize("verb", ["optimize", "quantize", "tune"])
def test_an_output_without_a_place_is_refused_before_any_work(cli, tmp_path, verb, output, words):
    model = parse("g (float[B,4] x) => (float[B,4] y) { y = Relu(x) }")
    onnx.save(ir.to_proto(model), tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "there").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    result = cli(verb, "model.onnx", "-o", f"{output}/t.json" if verb == "tune" else output)
    expect_one_line(result, 2, words)
    assert "  " not in result.stderr  # no phase was begun
    assert (tmp_path / "there").read_text() == "mine"

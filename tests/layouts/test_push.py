"""Pushing to the hub: a stand-in on this machine takes what huggingface_hub sends."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import onnxfuse
from onnxfuse.io import folders, onnx_file
from tests.cli import documented

REPOSITORY = "me/model"


class Hub(BaseHTTPRequestHandler):
    """What huggingface_hub asks of the hub to fill a repository of small files, which stand in the commit itself.

    (Large ones it sends to a storage of its own, with a library that asks no stand-in.)
    """

    def do_GET(self):
        if self.server.refuses:
            self._answer({"error": "Repository not found"}, 401)
            return
        assert self.path.partition("?")[0] == f"/api/models/{REPOSITORY}/tree/main"
        files = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.server.files]
        self._answer(files)

    def do_POST(self):
        content, where = self._content(), self.path.partition("?")[0]
        if self.server.refuses:
            self._answer({"error": "Invalid username or password."}, 401)
        elif where == "/api/repos/create":
            self.server.created.append(json.loads(content))
            self._answer({"url": f"{self.server.address}/{REPOSITORY}"})
        elif where == "/api/validate-yaml":
            self._answer({})
        elif where.endswith("/preupload/main"):
            asked = json.loads(content)["files"]
            files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False} for each in asked]
            self._answer({"files": files})
        elif where.endswith("/commit/main"):
            told = [each["value"] for each in map(json.loads, content.splitlines()) if each["key"] == "file"]
            self.server.files |= {each["path"]: base64.b64decode(each["content"]) for each in told}
            self._answer({"commitUrl": f"{self.server.address}/{REPOSITORY}/commit/1", "commitOid": "1"})

    def _content(self):
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _answer(self, value, code=200):
        text = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine, and nothing else that is asked."""
    constants = pytest.importorskip("huggingface_hub.constants")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.created, server.refuses = {}, [], False
    server.address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def package(encoder, cli, tmp_path):
    """A package in the hub's layout, of models that ``run`` has measured."""
    paths = {"ONNX": encoder / folders.MODEL, "int8": encoder / folders.QUANTIZED}
    parity = {"ONNX": "max diff 2.0e-07", "int8": "cosine 0.9990, real inputs"}
    rows = {
        name: {"file": path.name, "fingerprint": folders.fingerprint(path), "parity": parity[name]}
        for name, path in paths.items()
    }
    step = {
        "plan": {"batch": 1, "length": 128, "threads": 2},
        "versions": folders.versions(),
        "timings": {"PyTorch": {"p50": 60.0}, "ONNX": {"p50": 40.0}, "int8": {"p50": 12.0}},
        "rows": rows,
        "cpu": "a processor (avx2)",
    }
    (encoder / folders.RECORD).write_text(json.dumps({"benchmark": step}))
    assert cli("package", encoder, "--for", "transformers.js", "-o", "out").returncode == 0
    return tmp_path / "out"


def test_a_package_becomes_a_repository_with_a_card_of_what_was_measured(package, hub, cli):
    (package / "notes.txt").write_text("mine, and nobody else's")
    result = cli("push", "out", REPOSITORY, "--private", "--json")
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    documented.require("push", told)
    assert told["url"] == f"{hub.address}/{REPOSITORY}/commit/1" and set(told["files"]) == set(hub.files)
    assert hub.created[0]["visibility"] == "private"
    made = {path.relative_to(package).as_posix(): path.read_bytes() for path in package.rglob("*") if path.is_file()}
    made.pop("notes.txt")
    card = hub.files.pop("README.md").decode()
    assert hub.files == made and onnx_file.PROTOBUF_LIMIT > len(made["onnx/model.onnx"]) > 100
    assert card.startswith("---\ntags:\n- onnx\n- onnxfuse\n- transformers.js\n---\n")
    sizes = {name: f"{len(made[name]) / 1e6:.1f} MB" for name in ("onnx/model.onnx", "onnx/model_quantized.onnx")}
    assert "| PyTorch |  |  | 60.00 | 1.00 | reference |" in card
    assert f"| onnx/model.onnx | float | {sizes['onnx/model.onnx']} | 40.00 | 1.50 | max diff 2.0e-07 |" in card
    quantized = sizes["onnx/model_quantized.onnx"]
    assert f"| onnx/model_quantized.onnx | int8 | {quantized} | 12.00 | 5.00 | cosine 0.9990, real inputs |" in card
    assert "Measured at batch 1, length 128, 2 threads, on a processor (avx2), with onnxruntime" in card
    assert f'await pipeline("feature-extraction", "{REPOSITORY}", {{ dtype: "q8" }})' in card


def test_what_was_measured_of_other_files_is_not_told(encoder, package, hub, cli):
    """A model that was made anew since has not been measured."""
    assert cli("optimize", encoder).returncode == 0
    assert cli("package", encoder, "--for", "optimum", "-o", "other").returncode == 0
    assert cli("push", "other", REPOSITORY).returncode == 0
    card = hub.files["README.md"].decode()
    assert "Measured" not in card and "| onnx/model.onnx | float |" in card


def test_a_card_of_ones_own_stands(package, hub, cli):
    (package / "README.md").write_text("# Mine")
    assert cli("push", "out", REPOSITORY).returncode == 0
    assert hub.files["README.md"] == b"# Mine"


def test_a_repository_of_others_is_not_replaced(package, hub, cli):
    hub.files |= {".gitattributes": b"", "config.json": b"theirs"}
    result = cli("push", "out", REPOSITORY)
    assert result.returncode == 2 and "has a config.json that onnxfuse did not make" in result.stderr
    assert hub.files["config.json"] == b"theirs"
    assert cli("push", "out", REPOSITORY, "--overwrite").returncode == 0
    assert hub.files["config.json"] == (package / "config.json").read_bytes()
    assert cli("push", "out", REPOSITORY).returncode == 0  # now it is ours


def test_files_that_were_changed_do_not_go(package, hub, cli):
    (package / "tokenizer.json").write_text("{}")
    result = cli("push", "out", REPOSITORY)
    assert result.returncode == 2 and "out/tokenizer.json was changed" in result.stderr and not hub.files


def test_only_packages_in_the_hubs_layout_go(encoder, package, hub, cli):
    assert cli("package", encoder, "--for", "triton", "-o", "served").returncode == 0
    for folder in ("served", encoder):
        result = cli("push", folder, REPOSITORY)
        assert result.returncode == 2 and "of optimum, sentence-transformers, transformers.js" in result.stderr
    assert not hub.created


@pytest.mark.parametrize("name", ["me/my model", "model", "", "a/b/c", "me/", "me/-x", "me/a..b", "mé/model", 5])
def test_what_is_no_name_of_a_repository_is_refused_before_the_hub_is_asked(name, package, hub):
    with pytest.raises(onnxfuse.UsageError, match=r"the repository is .*, wanted OWNER/NAME"):
        onnxfuse.push(package, name)
    assert not hub.created


def test_without_a_right_to_write_it_says_how_to_get_one(package, hub, cli):
    hub.refuses = True
    result = cli("push", "out", REPOSITORY)
    assert result.returncode == 8 and result.stderr.endswith("log in with: hf auth login\n") and not hub.files


def test_a_hub_that_is_not_there_is_said_in_one_line(package, hub, cli, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = cli("push", "out", REPOSITORY)
    assert result.returncode == 8 and "check the name and the connection" in result.stderr
    assert "Traceback" not in result.stderr

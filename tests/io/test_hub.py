"""A hub that cannot be asked: said at once, and what is in the cache is read without waiting."""

import socket
import subprocess
import sys
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants

from onnxfuse.errors import ExportError, UsageError
from onnxfuse.exporters import sources
from onnxfuse.io import hub


@pytest.fixture
def online(monkeypatch):
    """No offline mode, no proxy; a list that receives what is connected to, and what happens there (nothing: it answers)."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub.urllib.request, "getproxies", dict)
    asked, failures = [], []

    class Connection:
        def close(self):
            asked.append("closed")

    def connect(place, wait):
        asked.append(place)
        assert wait == hub.WAIT
        if failures:
            raise failures[0]
        return Connection()

    monkeypatch.setattr(socket, "create_connection", connect)
    return asked, failures


def test_a_hub_that_answers_may_be_asked(online):
    asked, _ = online
    assert hub.unreachable() == ""
    assert [each for each in asked if each != "closed"] == [(hub.urlsplit(constants.ENDPOINT).hostname, 443)]
    assert asked[-1] == "closed"


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (ConnectionRefusedError(111, "Connection refused"), "Connection refused"),
        (TimeoutError("timed out"), ""),
    ],
)
def test_no_connection_is_told_from_a_slow_one(online, failure, said):
    online[1].append(failure)
    assert hub.unreachable().endswith(said)
    assert bool(hub.unreachable()) == bool(said)


def test_behind_a_proxy_nothing_is_tried(online, monkeypatch):
    monkeypatch.setattr(hub.urllib.request, "getproxies", lambda: {"https": "proxy:1"})
    assert (hub.unreachable(), online[0]) == ("", [])


def test_an_id_outside_of_the_cache_is_refused(online, monkeypatch, tmp_path):
    hub.require_there("a/b")
    online[1].append(socket.gaierror(-2, "Name or service not known"))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, name: None)
    with pytest.raises(
        ExportError, match=r"cannot load 'a/b' .*\(no connection to .*Name or service not known\); check the name"
    ):
        hub.require_there("a/b")
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda source, name: "there" if name == "modules.json" else None
    )
    hub.require_there("a/b")
    before = list(online[0])
    hub.require_there(str(tmp_path))
    with pytest.raises(UsageError, match="is not there"):
        hub.require_there("./nowhere")
    assert online[0] == before  # neither is asked for


def test_the_cache_is_read_alone_while_it_cannot_be_asked(online, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, name: "there" if source == "a/b" else None)
    with hub.settled("a/b"):
        assert not constants.is_offline_mode()
    online[1].append(ConnectionRefusedError(111, "Connection refused"))
    with hub.settled("a/b"):
        assert constants.is_offline_mode()
    assert not constants.is_offline_mode()
    with pytest.raises(KeyError), hub.settled("a/b"):
        raise KeyError
    assert not constants.is_offline_mode()
    with hub.settled("c/d"), pytest.raises(ExportError, match=r"'c/d' .*no connection to .*: Connection refused"):
        hub.require_there("c/d")  # by who opens it, once its extra is known to be there
    for other in (None, "./nowhere", object()):
        with hub.settled(other):
            assert not constants.is_offline_mode()


def test_the_answer_comes_before_torch_is_imported():
    code = """if True:
        import sys
        from onnxfuse.errors import ExportError
        from onnxfuse.exporters import open_checkpoint
        try:
            open_checkpoint("nobody/has-this-model")
        except ExportError as error:
            print(error, [name for name in ("torch", "transformers") if name in sys.modules])
    """
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
    ).stdout
    assert "HF_HUB_OFFLINE is set" in said
    assert said.strip().endswith("[]")


@pytest.mark.parametrize("verb", ["run", "export"])
def test_the_command_line_answers_before_anything_slow_is_imported(verb):
    code = f"""if True:
        import sys
        sys.argv = ["onnxfuse", {verb!r}, "nobody/has-this-model"]
        from onnxfuse.cli.app import main
        try:
            main()
        except SystemExit as left:
            slow = ("torch", "transformers", "onnxruntime", "onnx", "onnx_ir", "onnxscript", "sympy")
            print(left.code, [name for name in slow if name in sys.modules])
    """
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (result.stdout, result.stderr.count("HF_HUB_OFFLINE is set")) == ("4 []\n", 1)


def test_checkpoints_are_opened_so(online, monkeypatch):
    online[1].append(ConnectionRefusedError(111, "Connection refused"))
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda source, name: "there")
    opening = SimpleNamespace(open=lambda source, opening: constants.is_offline_mode())
    monkeypatch.setattr(sources, "frameworks", lambda: {"pt": opening})
    assert sources.open_checkpoint("a/b", framework="pt") is True
    assert sources.open_checkpoint("a/b", framework="pt", random_weights=True) is False


def test_a_file_that_is_not_there_is_no_hub_id():
    with pytest.raises(UsageError, match=r"missing\.keras is not there"):
        hub.require_there("missing.keras")

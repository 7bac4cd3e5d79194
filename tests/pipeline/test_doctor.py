"""What ``doctor`` says of machine and environment."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

from onnxfuse.errors import MissingExtraError
from onnxfuse.pipeline import doctor, versions
from onnxfuse.runtime import open_runner

ROOT = Path(__file__).parents[2]
LOCKED = dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
LOCKED["torch"] = re.search(r"^TORCH := torch==(\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_what_was_tried_is_what_the_lock_file_names():
    assert {name: LOCKED[name] for name in versions.TRIED} == versions.TRIED
    own = {re.split("[<>=]", text)[0] for text in PROJECT["dependencies"]}
    assert own <= set(versions.TRIED)


def test_every_extra_of_users_is_for_something():
    developers = {"dev", "demo", "fuzz"}
    assert set(versions.FOR) == set(PROJECT["optional-dependencies"]) - developers


def fake(monkeypatch, here, requires):
    def version(name):
        if name not in here:
            raise importlib.metadata.PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requires)


WANTED = [
    "onnxruntime<2,>=1.32",
    "rich>=14",
    "numpy<3,>=2",
    "onnx<2,>=1.23",
    'torch>=2.13; extra == "torch"',
    'transformers<6,>=5.23; extra == "torch"',
    'transformers<5,>=4.57; extra == "tf"',
    'tensorflow>=2.21; extra == "tf"',
    'onnxfuse[torch]; extra == "baselines"',
    'nncf>=3; extra == "baselines"',
]


def test_packages_are_tried_oldest_untried_or_outside(monkeypatch):
    here = {
        "onnxruntime": "1.31.1",
        "rich": "14",
        "numpy": "2.0.9",
        "onnx": "1.23.2",
        "torch": "2.13.0+cpu",
        "transformers": "4.57.6",
    }
    fake(monkeypatch, here, WANTED)
    found = {each.name: each for each in versions.packages()}
    assert {name: each.state for name, each in found.items()} == {
        "onnxruntime": "outside",
        "rich": "oldest",
        "numpy": "untried",
        "onnx": "tried",
        "torch": "tried",
        "transformers": "untried",
    }
    assert found["transformers"].wanted == "<5,>=4.57"  # the extra that this version is for
    assert [(each.extra, each.packages) for each in versions.missing()] == [("tf", ("tensorflow",)), ("baselines", ("nncf",))]
    assert [each.partition(":")[0] for each in versions.bad_pairs()] == ["onnxruntime 1.31.1"]


@pytest.mark.parametrize(
    ("here", "named"),
    [
        ({"onnxruntime": "1.30.0"}, ["onnxruntime 1.30.0"]),
        ({"onnxruntime": "1.32.0"}, []),
        ({"transformers": "5.24.0", "tensorflow": "2.21.0"}, ["transformers 5.24.0 and tensorflow 2.21.0"]),
        ({"transformers": "4.57.6", "tensorflow": "2.21.0"}, []),
        ({"transformers": "5.24.0"}, []),
        ({"optimum-onnx": "0.1.0", "transformers": "5.24.0"}, ["optimum-onnx 0.1.0 and transformers 5.24.0"]),
    ],
)
def test_known_bad_pairs(here, named):
    assert [each.partition(":")[0] for each in versions.bad_pairs(here)] == named


@pytest.mark.parametrize(
    ("binary", "environment", "platform", "said"),
    [
        (b"..ORT_DISABLE_TELEMETRY..", {}, "linux", "can send it"),
        (b"..ORT_DISABLE_TELEMETRY..", {"ORT_DISABLE_TELEMETRY": "0"}, "linux", "can send it"),
        (b"..ORT_DISABLE_TELEMETRY..", {"ORT_DISABLE_TELEMETRY": "1"}, "linux", "off: ORT_DISABLE_TELEMETRY is set"),
        (b"....", {}, "linux", "has none"),
        (b"....", {}, "win32", "disable_telemetry_events"),
    ],
)
def test_telemetry(binary, environment, platform, said):
    assert said in doctor.telemetry(binary, environment, platform)


def test_the_binary_is_onnx_runtimes():
    assert len(doctor._binary()) > 1_000_000


def test_int8_is_measured_and_what_cannot_be_says_why(monkeypatch):
    def without_openvino(path, settings=None):
        if settings is not None and settings.runtime.startswith("openvino"):
            raise MissingExtraError("running models with OpenVINO", "openvino")
        return open_runner(path) if settings is None else open_runner(path, settings)

    monkeypatch.setattr(doctor, "open_runner", without_openvino)
    for name, value in (("WIDTH", 128), ("LAYERS", 1), ("ROUNDS", 2)):
        monkeypatch.setattr(doctor, name, value)
    phases = []
    int8, plain, bf16 = doctor.speeds(lambda text, done=None, step="": phases.append(text))
    assert (int8.name, int8.runtime, int8.why) == ("int8", "ort", "")
    assert 0 < int8.speed.low <= int8.speed.value <= int8.speed.high
    assert plain.speed is bf16.speed is None
    assert "onnxfuse[openvino]" in bf16.why
    assert set(phases) == {"measuring"}


def test_the_model_that_is_measured_computes(monkeypatch, tmp_path):
    import numpy as np
    import onnx_ir as ir

    monkeypatch.setattr(doctor, "WIDTH", 16)
    model = doctor._model()
    ir.save(model, tmp_path / "m.onnx")
    x = np.random.default_rng(1).standard_normal((3, 16), np.float32)
    wanted = x
    for weight in model.graph.initializers.values():
        wanted = np.maximum(wanted @ weight.const_value.numpy(), 0)
    assert len(model.graph.initializers) == 2 * doctor.LAYERS
    np.testing.assert_allclose(open_runner(tmp_path / "m.onnx")({"x": x})["y"], wanted, rtol=1e-4, atol=1e-5)

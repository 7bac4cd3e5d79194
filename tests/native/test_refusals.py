"""What the operators and their library refuse, and with which words."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.native.models import WEIGHTS, D, F, attention, encoder_session, encoder_tensors, linear

ONES = np.ones((8, 5), np.float32)


def _linear(**tensors):
    return {"x": np.ones((2, 8), np.float32), "weight": ONES, **tensors}


@pytest.mark.parametrize(
    ("tensors", "attributes", "said"),
    [
        ({"weight": ONES.astype(np.float64)}, {}, "Linear, input 1 (weight) is float64; float32, bfloat16 or int8 is wanted"),
        ({"weight": ONES.astype(np.int8)}, {}, "Linear, input 2 (scale) is missing; an int8 weight needs it"),
        ({"scale": ONES[0]}, {}, "Linear, input 2 (scale) is there; only an int8 weight has one"),
        ({"rows": ONES[:, 0]}, {}, "Linear, input 3 (rows) is there; only an int8 weight has them"),
        ({"weight": ONES.astype(np.int8), "scale": ONES[:, 0]}, {}, "input 2 (scale) has shape [8]; [5] is wanted"),
        ({"weight": ONES[0]}, {}, "Linear, input 1 (weight) has shape [5]; [K, N] is wanted, none of them 0"),
        ({"bias": ONES[:, 0]}, {}, "Linear, input 4 (bias) has shape [8]; [5] is wanted"),
        ({"gamma": ONES}, {}, "Linear, input 6 (gamma) has shape [8, 5]; [5] is wanted"),
        ({"beta": ONES[0]}, {}, "Linear, input 7 (beta) is there without gamma"),
        ({"x": np.ones((2, 7), np.float32)}, {}, "Linear, input 0 (x) has shape [2, 7]; [..., 8] is wanted"),
        ({"x": np.float32(1)}, {}, "Linear, input 0 (x) is a scalar; [..., K] is wanted"),
        ({"residual": np.ones((3, 5), np.float32)}, {}, "input 5 (residual) has shape [3, 5]; [2, 5] is wanted"),
        ({}, {"activation": "Relu"}, 'Linear, attribute activation is "Relu"; "", "Gelu" or "GeluTanh" is wanted'),
        ({}, {"epsilon": -1.0, "gamma": 1}, "Linear, attribute epsilon is -1.000000; a finite number from 0 is wanted"),
    ],
)
def test_linear_refuses(library, tensors, attributes, said):
    tensors = _linear(**{name: np.asarray(array) for name, array in tensors.items()})
    if attributes.pop("gamma", None):
        tensors["gamma"] = ONES[0]
    with pytest.raises(Exception) as error:
        linear(library, tensors, **attributes)
    assert said in str(error.value)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_what_is_not_constant_is_refused(library, name):
    tensors = _linear(bias=ONES[0])
    with pytest.raises(Exception, match=rf"Linear, input \d \({name}\) is computed in the graph; an initializer is wanted"):
        linear(library, tensors, constants=tuple(other for other in WEIGHTS if other != name))


_Q = np.ones((2, 3, 24), np.float32)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_heads": 0}, "Attention, attribute num_heads is 0; 1 or more is wanted"),
        ({"num_heads": 3}, "Attention, input 0 (q) has a last axis of 8; a multiple of num_heads, 3, is wanted"),
        ({"precision": "half"}, 'Attention, attribute precision is "half"; "float32" or "bfloat16" is wanted'),
        ({"scale": float("nan")}, "Attention, attribute scale is nan; a finite number from 0 is wanted"),
        ({"q": _Q[..., :23]}, "Attention, input 0 (q) has shape [2, 3, 23]; without k and v a last axis of 3 D is wanted"),
        ({"q": _Q[0]}, "Attention, input 0 (q) has shape [3, 24]; without bounds [B, S, D] is wanted"),
        ({"k": _Q}, "Attention, input 2 (v) is missing; k and v come together or not at all"),
        ({"k": _Q[..., :8], "v": _Q}, "input 0 (q) has shape [2, 3, 24]; a last axis as k's, 8, is wanted"),
        ({"k": _Q, "v": _Q[:1]}, "input 2 (v) has shape [1, 3, 24]; as many tokens as k, [2, 3, 24], are wanted"),
        ({"q": _Q[:1], "k": _Q, "v": _Q}, "input 0 (q) has shape [1, 3, 24]; as many sequences as k, [2, 3, 24], are wanted"),
        (
            {"q": _Q[:1], "k": _Q, "v": _Q, "bounds": [0, 6]},
            "input 0 (q) has shape [1, 3, 24]; as many tokens as k, 6, or one a sequence, 1, are wanted",
        ),
        ({"bounds": [1, 6]}, "Attention, input 3 (bounds) begins with 1; 0 is wanted"),
        ({"bounds": [0, 4, 3]}, "input 3 (bounds) falls from 4 to 3 at 2; values that do not fall are wanted"),
        ({"bounds": [0, 7]}, "input 3 (bounds) ends with 7; at most the number of tokens, 6, is wanted"),
        ({"bounds": [[0, 6]]}, "input 3 (bounds) has shape [1, 2]; [B+1] is wanted"),
        ({"bounds": np.zeros(0, np.int64)}, "input 3 (bounds) has shape [0]; [B+1] is wanted"),
        ({"bias": np.zeros(5, np.float32)}, "input 4 (bias) has shape [5]; as many elements as key tokens, 6, are wanted"),
    ],
)
def test_attention_refuses(library, arguments, said):
    with pytest.raises(Exception) as error:
        attention(library, **{"q": _Q, "num_heads": 2, **arguments})
    assert said in str(error.value)


def _changed(**changes):
    tensors = encoder_tensors("float32")
    tensors.update({name.replace("_", "."): array for name, array in changes.items()})
    return tensors


@pytest.mark.parametrize(
    ("changes", "attributes", "said"),
    [
        ({}, {"order": "sandwich"}, 'Encoder, attribute order is "sandwich"; "post" or "pre" is wanted'),
        (
            {"0_qkv_weight": np.ones((D, D), np.float32)},
            {},
            "input 3 (layer 0 qkv weight) has shape [48, 48]; [48, 144] is wanted",
        ),
        ({"1_up_weight": np.ones((D + 1, F), np.float32)}, {}, "input 33 (layer 1 up weight) has shape [49, 80]; [48, N]"),
        (
            {"1_down_weight": np.ones((F, 40), np.float32)},
            {},
            "input 37 (layer 1 down weight) has shape [80, 40]; [80, 48] is wanted",
        ),
        ({"0_norm1_gamma": None}, {}, "Encoder, input 12 (layer 0 norm1 beta) is there without layer 0 norm1 gamma"),
        ({"1_norm2_gamma": None, "1_norm2_beta": None}, {}, "Encoder, input 41 (layer 1 norm2 gamma) is missing"),
        ({"0_out_weight": None}, {}, "Encoder, input 7 (layer 0 out weight) is missing"),
        ({"0_out_bias": np.ones(3, np.float32)}, {}, "Encoder, input 10 (layer 0 out bias) has shape [3]; [48] is wanted"),
    ],
)
def test_encoder_refuses_when_a_session_opens(library, changes, attributes, said):
    with pytest.raises(Exception) as error:
        encoder_session(library, _changed(**changes), **attributes)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({"x": np.ones((2, 3, 47), np.float32)}, "Encoder, input 0 (x) has shape [2, 3, 47]; [..., 48] is wanted"),
        ({"bounds": np.array([0, 9])}, "Encoder, input 1 (bounds) ends with 9; at most the number of tokens, 6, is wanted"),
        (
            {"bias": np.ones(7, np.float32)},
            "Encoder, input 2 (bias) has shape [7]; as many elements as key tokens, 6, are wanted",
        ),
    ],
)
def test_encoder_refuses_when_it_runs(library, feeds, said):
    session = encoder_session(library, encoder_tensors("float32"), bounds=True, bias=True)
    given = {"x": np.ones((2, 3, D), np.float32), "bounds": np.array([0, 6]), "bias": np.zeros(6, np.float32), **feeds}
    with pytest.raises(Exception) as error:
        session.run(None, given)
    assert said in str(error.value)


def test_encoder_without_bounds_needs_a_batch(library):
    session = encoder_session(library, encoder_tensors("float32"))
    with pytest.raises(Exception, match=r"has shape \[6, 48\]; \[B, S, 48\] without bounds is wanted"):
        session.run(None, {"x": np.ones((6, D), np.float32)})


class _Base(ctypes.Structure):
    """OrtApiBase."""

    _fields_ = (("get_api", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)), ("version", ctypes.CFUNCTYPE(ctypes.c_void_p)))


def test_an_old_onnxruntime_is_refused(library):
    path = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))
    runtime = ctypes.CDLL(str(path))
    runtime.OrtGetApiBase.restype = ctypes.POINTER(_Base)
    real, text = runtime.OrtGetApiBase().contents, ctypes.create_string_buffer(b"1.22.1")
    fields = dict(_Base._fields_)
    old = _Base(
        fields["get_api"](lambda version: real.get_api(version) if version <= 22 else None),
        fields["version"](lambda: ctypes.addressof(text)),
    )
    register = ctypes.CDLL(str(library)).RegisterCustomOps
    register.restype = ctypes.c_void_p
    status = register(None, ctypes.byref(old))
    table = ctypes.cast(real.get_api(23), ctypes.POINTER(ctypes.c_void_p))
    message = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p)(table[2])  # GetErrorMessage
    assert message(status) == b"onnxfuse: its operators need ONNX Runtime 1.23 or later; this is 1.22.1"


def test_the_library_tells_what_it_runs(library):
    loaded = ctypes.CDLL(str(library))
    for name in ("kernels", "selftest", "instruction_sets"):
        getattr(loaded, f"onnxfuse_{name}").restype = ctypes.c_char_p
    assert loaded.onnxfuse_selftest() == b""
    sets = loaded.onnxfuse_instruction_sets().split(b",")
    assert sets[0] == b"portable"
    assert loaded.onnxfuse_kernels() in sets


def test_an_unknown_instruction_set_is_refused(library):
    code = "import onnxruntime, sys\nonnxruntime.SessionOptions().register_custom_ops_library(sys.argv[1])\n"
    result = subprocess.run(
        [sys.executable, "-c", code, str(library)], env={**os.environ, "ONNXFUSE_NATIVE": "mmx"}, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert 'ONNXFUSE_NATIVE is "mmx"; this CPU and this build have portable' in result.stderr

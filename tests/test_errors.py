"""What errors say is text alone, whatever a stranger's names hold."""

import ast

import pytest

from onnxfuse.errors import ModelError, first_line, one_line, reason

ODD = "Evil\x1b]0;a\x07\x9b31m‮\udc80Op"
SAFE = r"Evil\x1b]0;a\x07\x9b31m\u202e\udc80Op"


@pytest.mark.parametrize("said", [str, one_line, first_line, reason])
def test_nothing_that_a_terminal_obeys_is_said(said):
    assert said(ModelError(ODD)) == SAFE
    assert said(ModelError("naïve — 模型 \\ ok")) == "naïve — 模型 \\ ok"


def test_errors_of_libraries_become_text_too():
    assert one_line(ValueError(f"a\n{ODD}")) == f"a {SAFE}"
    assert first_line(ValueError(f"{ODD}\nb")) == SAFE


def test_a_reason_has_neither_the_place_nor_the_advice():
    assert reason(ModelError("a.json is not JSON (line 1); save it again"), "a.json") == "is not JSON (line 1)"
    assert reason(ModelError("a.json: opset is -1"), "a.json") == "opset is -1"


def test_an_address_says_nothing():
    assert one_line(ValueError(f"malformed node: {ast.parse('1')!r}")) == "malformed node: ast.Module"


def test_colours_of_others_do_not_reach_a_message():
    error = ValueError("\x1b[96m[torch.onnx]\x1b[0m failed\nat once")
    assert (one_line(error), first_line(error)) == ("[torch.onnx] failed at once", "[torch.onnx] failed")

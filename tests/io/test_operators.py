"""What ONNX Runtime says of its operators."""

from onnxfuse.operators import is_known, is_runnable, newest_opsets, newest_schema


def test_what_onnx_runtime_can_run_is_its_own_word():
    known = [
        ("Upsample", 9, True),
        ("Upsample", 10, False),
        ("GroupNormalization", 18, True),
        ("LayerNormalization", 8, True),
        ("RandomNormal", 21, True),
        ("RandomNormal", 22, False),
        ("Attention", 22, False),
        ("Attention", 23, True),
        ("Bernoulli", 22, True),
        ("Constant", 17, True),
        ("Nothing", 17, False),
        ("Gelu", 19, False),
        ("Cast", 14, True),
    ]
    assert [(name, opset, is_runnable(name, opset)) for name, opset, _ in known] == known


def test_domains_operators_and_schemas_are_found_by_name():
    assert newest_opsets()["com.microsoft"] == 1
    assert newest_opsets()[""] >= 23
    assert is_known("com.microsoft", "MatMulNBits")
    assert not is_known("com.microsoft", "Nothing")
    assert newest_schema("", "LayerNormalization").since_version == 17  # its own of opset 1 is the older one
    assert newest_schema("", "Nothing") is None

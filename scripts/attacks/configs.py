"""config.json, onnxfuse.json and the files of a tokenizer as a stranger may write them: the file's name, a space, what is wrong."""

from __future__ import annotations

import json
from typing import Any

from attacks.sources import SIZES

GOOD: dict[str, Any] = {"model_type": "bert", "architectures": ["BertForSequenceClassification"], **SIZES}

WHOLE: dict[str, bytes] = {
    "empty": b"",
    "list": b"[]",
    "null": b"null",
    "number": b"1",
    "text": b'"bert"',
    "cut": b'{"model_type": "be',
    "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep-list": b"[" * 200_000,
    "latin": b'{"model_type": "b\xe9rt"}',
    "utf16": '{"model_type": "bert"}'.encode("utf-16"),
    "bom": b'\xef\xbb\xbf{"model_type": "bert"}',
    "digits": b'{"model_type": "bert", "hidden_size": ' + b"9" * 5000 + b"}",
    "nul": b'{"model_type": "bert\\u0000"}',
    "surrogate": b'{"model_type": "\\ud800"}',
    "binary": bytes(range(256)),
    "wide": b"{" + b",".join(b'"k%d": [1, {}]' % number for number in range(200_000)) + b"}",
    "twice": b'{"model_type": "bert", "model_type": []}',
}

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    3,
    2**70,
    1e308,
    float("nan"),
    float("inf"),
    "4",
    "x" * 10_000,
    [],
    [4],
    {},
    {"a": 1},
)
FIELDS = ("model_type", "num_attention_heads", "hidden_size", "num_hidden_layers", "architectures", "hidden_act")

RECORDS: dict[str, Any] = {
    "list": [],
    "null": None,
    "steps": {"optimize": 1, "quantize": None, "export": []},
    "plan": {"quantize": {"plan": {"calibration": "/etc/passwd"}}},
    "plan-list": {"quantize": {"plan": {"calibration": [1]}}},
    "deep": {"export": {"plan": {"a": {"b": {"c": {}}}}}},
}


def _fields() -> dict[str, bytes]:
    found = {}
    for field in FIELDS:
        for number, value in enumerate(VALUES):
            if (number + FIELDS.index(field)) % 2 == 0 or field in ("model_type", "num_attention_heads"):
                found[f"config.json {field}-{number}"] = json.dumps(GOOD | {field: value}).encode()
    return found


FILES: dict[str, bytes] = {
    **{f"config.json {name}": data for name, data in WHOLE.items()},
    **_fields(),
    **{f"onnxfuse.json {name}": data for name, data in WHOLE.items()},
    **{f"onnxfuse.json record-{name}": json.dumps(value).encode() for name, value in RECORDS.items()},
}

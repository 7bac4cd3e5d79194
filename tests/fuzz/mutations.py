"""Mutations that know what they mutate: ONNX messages field by field, JSON value by value. What they make still parses, so that it
reaches the code behind the parser; bytes are mutated by libFuzzer itself.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message

NUMBERS = (0, 1, -1, 2, 3, 7, 16, 64, 255, 999, 2**15, 2**31 - 1, 2**31, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, 1.0, -1.0, 1e-38, 3e38, -3e38, float("inf"), float("-inf"), float("nan"), 0.5)
TEXTS = ("", "x", "mask", "-1", "3", "²", "../up", "/etc/passwd", "a\nb", "N" * 300, "\x00", "ai.onnx", "com.microsoft", "é")
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})

LONGEST = 1 << 17
"""Bytes of what is made. A model of the corpus has some thousand."""


def mutate_model(content: bytes, chance: random.Random) -> bytes:
    """An ONNX model with one to four fields changed; ``content`` itself where it is none, or what was made is too long."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
        for _ in range(chance.choice((1, 1, 1, 2, 3, 4))):
            places = list(_messages(model))
            _change(chance.choice(places), places, chance)
        made = bytes(model.SerializeToString())
    except (DecodeError, EncodeError, UnicodeDecodeError):  # bytes of an earlier change that are no text
        return content
    return made if len(made) <= LONGEST else content


def _messages(message: Message, depth: int = 0) -> Iterator[Message]:
    """A message and all inside it."""
    yield message
    if depth > 40:
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                yield from _messages(inner, depth + 1)


def _change(message: Message, places: list[Message], chance: random.Random) -> None:
    """Change one field: mostly one that is set."""
    present = [field for field, _ in message.ListFields()]
    field = chance.choice(present) if present and chance.random() < 0.8 else chance.choice(message.DESCRIPTOR.fields)
    if field.is_repeated:
        _change_list(getattr(message, field.name), field, places, chance)
    elif field.message_type is not None:
        _change_message(message, field, places, chance)
    else:
        setattr(message, field.name, _scalar(field, getattr(message, field.name), places, chance))


def _change_message(message: Message, field: FieldDescriptor, places: list[Message], chance: random.Random) -> None:
    alike = [place for place in places if place.DESCRIPTOR is field.message_type]
    if alike and chance.random() < 0.5:
        content = chance.choice(alike).SerializeToString()  # of what may hold this very message
        getattr(message, field.name).ParseFromString(content)
    elif chance.random() < 0.5:
        message.ClearField(field.name)
    else:
        getattr(message, field.name).SetInParent()


def _change_list(items: Any, field: FieldDescriptor, places: list[Message], chance: random.Random) -> None:
    """Take one out, put one in twice, put in another, or put them in another order."""
    kept = [item.SerializeToString() if field.message_type is not None else item for item in items]
    act = chance.choice(("drop", "twice", "more", "swap", "edit", "none")) if kept else "more"
    at = chance.randrange(len(kept)) if kept else 0
    if act == "drop":
        del kept[at]
    elif act == "twice":
        kept.insert(chance.randrange(len(kept) + 1), kept[at])
    elif act == "swap":
        other = chance.randrange(len(kept))
        kept[at], kept[other] = kept[other], kept[at]
    elif act == "none":
        kept = []
    elif field.message_type is not None:
        alike = [place for place in places if place.DESCRIPTOR is field.message_type]
        kept[at:at] = [chance.choice(alike).SerializeToString() if alike else b""]
    else:
        kept[at : at + (act == "edit")] = [_scalar(field, kept[at] if kept else None, places, chance)]
    del items[:]
    for item in kept:
        if field.message_type is not None:
            items.add().ParseFromString(item)
        else:
            items.append(item)


def _scalar(field: FieldDescriptor, old: Any, places: list[Message], chance: random.Random) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return _bytes(old or b"", chance) if field.type == FieldDescriptor.TYPE_BYTES else _text(field, places, chance)
    if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return chance.choice(FLOATS)
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return chance.choice([value.number for value in field.enum_type.values])
    number = (old or 0) + chance.choice((-1, 1)) if chance.random() < 0.3 else chance.choice(NUMBERS)
    bits, signed = {
        FieldDescriptor.CPPTYPE_INT32: (32, True),
        FieldDescriptor.CPPTYPE_INT64: (64, True),
        FieldDescriptor.CPPTYPE_UINT64: (64, False),
    }[kind]
    low = -(2 ** (bits - 1)) if signed else 0
    return max(low, min(number, 2 ** (bits - signed) - 1))


def _text(field: FieldDescriptor, places: list[Message], chance: random.Random) -> str:
    """An operator, a text that the same field has elsewhere, a name of the model, or an odd one."""
    if field.name == "op_type" and chance.random() < 0.7:
        return chance.choice(OPERATORS)
    if chance.random() < 0.2:
        return chance.choice(TEXTS)
    nodes = [place for place in places if isinstance(place, onnx.NodeProto)]
    names = [name for node in nodes for name in (*node.input, *node.output)]
    same = [getattr(place, field.name) for place in places if place.DESCRIPTOR is field.containing_type and not field.is_repeated]
    return chance.choice(same or names or TEXTS) if chance.random() < 0.5 else chance.choice(names or TEXTS)


def _bytes(old: bytes, chance: random.Random) -> bytes:
    act = chance.choice(("cut", "more", "flip", "none"))
    if act == "flip" and old:
        at = chance.randrange(len(old))
        return old[:at] + bytes([chance.randrange(256)]) + old[at + 1 :]
    return {"cut": old[: len(old) // 2], "more": old + b"\xff" * 4, "flip": b"\x80"}.get(act, b"")


def mutate_json(content: bytes, chance: random.Random) -> bytes:
    """JSON with one or two values changed; ``content`` itself where it is none."""
    try:
        value = json.loads(content)
        for _ in range(chance.choice((1, 1, 2))):
            value = _changed(value, chance)
        made = json.dumps(value).encode()
    except (ValueError, RecursionError):
        return content
    return made if len(made) <= LONGEST else content


def _changed(value: Any, chance: random.Random) -> Any:
    """A value with one inside it replaced, dropped, doubled or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        if chance.random() < 0.15:
            return {name: item for name, item in value.items() if name != key}
        if chance.random() < 0.1:
            return value | {chance.choice((*TEXTS, *value)): value[key]}
        return value | {key: _changed(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        at = chance.randrange(len(value))
        middle = chance.choice(([], [value[at]] * 2, [_changed(value[at], chance)]))
        return [*value[:at], *middle, *value[at + 1 :]]
    odd = (None, True, [], {}, [value], {"a": value}, [[value] * 3] * 3, *NUMBERS, *FLOATS, *TEXTS)
    return chance.choice(odd)

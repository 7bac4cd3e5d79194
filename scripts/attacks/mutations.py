"""Small random changes of a valid model: its nodes, attributes and weights."""

from __future__ import annotations

import random
import struct

import onnx
from onnx import AttributeProto

from attacks.protos import set_dims


def mutate(proto: onnx.ModelProto, rng: random.Random) -> None:
    """One to three small changes of nodes, attributes and weights, of the kinds that shape inference and fusions trip over."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        rng.choice(MUTATIONS)(proto, rng)


def _attribute(proto: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice([node for node in proto.graph.node if node.attribute])
    attribute = rng.choice(node.attribute)
    odd = rng.choice((-(2**63), -99, -2, -1, 0, 1, 2, 7, 99, 2**31, 2**62))
    if attribute.type == AttributeProto.INT:
        attribute.i = odd
    elif attribute.type == AttributeProto.INTS:
        values = [odd if rng.random() < 0.5 else each for each in attribute.ints] + [odd] * rng.randrange(2)
        del attribute.ints[:]
        attribute.ints.extend(values)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice((float("nan"), float("inf"), -1.0, 0.0, 1e38))
    else:
        node.attribute.remove(attribute)


def _swap(proto: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice([node for node in proto.graph.node if node.input])
    known = [
        *(t.name for t in proto.graph.initializer),
        *(each.output[0] for each in proto.graph.node),
        "input_ids",
        "",
        "nowhere",
    ]
    node.input[rng.randrange(len(node.input))] = rng.choice(known)


def _drop(proto: onnx.ModelProto, rng: random.Random) -> None:
    del rng.choice([node for node in proto.graph.node if node.input]).input[-1:]


def _extra(proto: onnx.ModelProto, rng: random.Random) -> None:
    node = rng.choice(proto.graph.node)
    rng.choice((node.input, node.output)).append(f"extra{rng.randrange(99)}")


def _operator(proto: onnx.ModelProto, rng: random.Random) -> None:
    rng.choice(proto.graph.node).op_type = rng.choice(
        [node.op_type for node in proto.graph.node] + ["Range", "Expand", "Tile", "Split", "Einsum", "TopK"]
    )


def _tensor(proto: onnx.ModelProto, rng: random.Random) -> None:
    """Another shape of the same size, or another content of a small one."""
    tensor = rng.choice(proto.graph.initializer)
    if tensor.data_type == 7 and tensor.raw_data:
        count = len(tensor.raw_data) // 8
        tensor.raw_data = b"".join(
            struct.pack("<q", rng.choice((-(2**63), -5, -1, 0, 1, 3, 2**31, 2**40, 2**62))) for _ in range(count)
        )
    else:
        size = 1
        for dim in tensor.dims:
            size *= dim
        set_dims(tensor, rng.choice(([size], [1, size], [size, 1], [size // 2, 2], [], [0])))


def _remove(proto: onnx.ModelProto, rng: random.Random) -> None:
    """A node, whose output then is that before it."""
    node = rng.choice([node for node in proto.graph.node if node.input])
    for user in proto.graph.node:
        for at, name in enumerate(user.input):
            if name == node.output[0]:
                user.input[at] = node.input[0]
    proto.graph.node.remove(node)


MUTATIONS = (_attribute, _swap, _drop, _extra, _operator, _tensor, _remove)

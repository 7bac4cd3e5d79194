"""What two regions have in common where one proof holds for both: the equal layers of a model have regions of one key.

A verdict depends on the nodes that matched and on those that replace them, on how values connect them, and on what they read from
outside. The key holds all of that; for regions of one key the same nodes would run on the same numbers, except that of weights it
holds only type and shape.

Why the verdict holds for other weights: a rule says that two expressions are equal whatever their inputs hold, unless its guard
asks what one holds. That is why a proof runs on random activations: they stand for all others. The weights of the first region
stand for all others in the same way, as far as nobody looked at them. So a constant is a weight only when

- it holds floats, and more of them than the analysis follows (``SMALL``), from which guards know what is in small ones;
- the guard did not read it (``Match.read``), and ``after`` did not make it: what is computed from weights is no free choice;
- its numbers would show a difference (``is_telling``): a bias of zeros would prove that every bias may be left out.

Every other constant is in the key with all that it holds. Two weights of one region that hold the same are in it as the same:
what is true of them may not be true of two others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Hashable, Iterable, Mapping

import numpy as np
import onnx_ir as ir

from onnxfuse.rewrite.analysis import SMALL, stored
from onnxfuse.rewrite.attributes import attribute_proto

SAMPLE = 4096
"""Elements of a weight that are looked at, evenly spaced."""

REPEATED = 1 / 16
"""The share of those that may be one and the same number."""

GRAPHS = {ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS}


def region_key(
    nodes: Iterable[ir.Node],
    results: Iterable[ir.Value],
    feeds: Mapping[ir.Value, np.ndarray],
    weights: Collection[ir.Value],
) -> Hashable:
    """The key of a region; equal to no other where a node holds a graph, of whose inside nothing is known here.

    Args:
        nodes: the matched ones, then their replacement.
        results: the value that is replaced, then the one that replaces it.
        feeds: what the nodes read from outside.
        weights: those of it that may hold other numbers, of the same type and shape.
    """
    numbers: dict[ir.Value | None, int] = {None: -1} | {value: at for at, value in enumerate(feeds)}
    written: list[Hashable] = []
    for node in nodes:
        if any(attribute.type in GRAPHS for attribute in node.attributes.values()):
            return object()
        read = tuple(numbers.setdefault(value, len(numbers)) for value in node.inputs)
        made = tuple(numbers.setdefault(value, len(numbers)) for value in node.outputs)
        written.append((node.domain, node.op_type, node.overload, _attributes(node), read, made))
    return tuple(written), tuple(numbers[value] for value in results), tuple(_outside(feeds, weights))


def _attributes(node: ir.Node) -> tuple[bytes, ...]:
    return tuple(attribute_proto(node.attributes[name]).SerializeToString(deterministic=True) for name in sorted(node.attributes))


def _outside(feeds: Mapping[ir.Value, np.ndarray], weights: Collection[ir.Value]) -> Iterable[Hashable]:
    """For each value, all that it holds; for a telling weight its place among the region's different ones instead."""
    places: dict[Hashable, int] = {}
    for value, array in feeds.items():
        sample = _sample(array) if value in weights else None
        if sample is not None and is_telling(sample):
            content: Hashable = places.setdefault((array.shape, sample.tobytes()), len(places))
        else:
            content = hashlib.blake2b(array.tobytes(), digest_size=16).digest()
        yield array.dtype.str, array.shape, content


def may_be_weight(value: ir.Value) -> bool:
    """Whether a value is a constant of floats, and of more of them than the analysis follows. Does not read it."""
    tensor = stored(value)
    return tensor is not None and tensor.dtype.is_floating_point() and tensor.size > SMALL


def _sample(array: np.ndarray) -> np.ndarray:
    flat = array.reshape(-1)
    return flat[:: max(1, flat.size // SAMPLE)]


def is_telling(sample: np.ndarray) -> bool:
    """Whether these numbers would show what is done to them: not where many are 0, or 1, or all are one number."""
    return all(np.count_nonzero(sample == number) <= REPEATED * sample.size for number in (0, 1, sample[0]))

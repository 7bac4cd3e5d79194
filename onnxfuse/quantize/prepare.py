"""Everything about a model's int8 form that does not depend on which linear layers take part: measured and rounded once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxfuse.config import Scheme
from onnxfuse.errors import ModelError, NothingToQuantizeError, UsageError
from onnxfuse.io.progress import Progress, silent
from onnxfuse.quantize import weights
from onnxfuse.quantize.calibration import Activations, Batches, histograms, observe
from onnxfuse.quantize.linears import Linear, find_linears, require_float, why_none
from onnxfuse.quantize.patches import patches_to_products
from onnxfuse.quantize.ranges import narrowed, scale_and_zero
from onnxfuse.quantize.smooth import smooth
from onnxfuse.quantize.weights import Codes
from onnxfuse.runtime.probes import product_saturates


@dataclass(frozen=True)
class Prepared:
    """A float model ready to be written in int8.

    Args:
        model: the float model, smoothed; what it computes is unchanged.
        linear layers: what can be quantized in it.
        codes: the linear layers' weights, by linear layer.
        steps: of a static model, the activations' scale and zero point, by linear layer.
        smoothed: the alpha of each linear layer that was smoothed.
    """

    model: ir.Model
    scheme: Scheme
    linears: tuple[Linear, ...]
    codes: Mapping[str, Codes]
    steps: Mapping[str, tuple[np.float32, np.uint8]] = field(default_factory=dict)
    smoothed: Mapping[str, float] = field(default_factory=dict)


def prepare(model: ir.Model, scheme: Scheme, batches: Batches | None = None, progress: Progress = silent) -> Prepared:
    """Smooth a float model in place, round its weights, and find the scales of its activations.

    Args:
        batches: real inputs, given anew at each call; None rounds weights to nearest and smooths nothing.

    Raises:
        UsageError: a static model without calibration.
        ModelError: the model is int8 or fp16 already, has nothing worth quantizing, or holds something that is not finite.
    """
    require_float(model)
    patches_to_products(model)
    linears = find_linears(model.graph)
    if not linears:
        raise NothingToQuantizeError(f"nothing in the model {model.graph.name!r} is worth quantizing: {why_none(model)}")
    for linear in linears:
        if not np.isfinite(linear.matrix()).all():
            raise ModelError(f"weight {linear.weight.name} holds NaN or infinity; the checkpoint is broken, export it again")
    if batches is None:
        if scheme.static:
            raise UsageError("static int8 needs calibration data; give --calibration FILE, or leave --static out")
        progress("rounding weights")
        return Prepared(model, scheme, tuple(linears), {p.name: _nearest(p, scheme) for p in linears})
    compensated = scheme.rounding == "gptq"
    seen = observe(model, _widths(linears), batches, moments=compensated, progress=progress)
    of_linear = {linear.name: seen[linear.input.name or ""] for linear in linears}
    changed = {}
    if scheme.smooth != "off":
        progress("smoothing outliers")
        changed = smooth(
            model.graph,
            linears,
            seen,
            levels=weights.LARGEST,
            compensated=compensated,
            alpha=None if scheme.smooth == "auto" else float(scheme.smooth),
        )
    codes = {}
    for number, linear in enumerate(linears):
        progress("rounding weights", number / len(linears), linear.role)
        if linear.name in changed:
            of_linear[linear.name] = of_linear[linear.name].divided(changed[linear.name][1])
        codes[linear.name] = _rounded(linear, scheme, of_linear[linear.name])
    steps = _steps(model, scheme, linears, of_linear, batches, progress) if scheme.static else {}
    return Prepared(model, scheme, tuple(linears), codes, steps, {name: alpha for name, (alpha, _) in changed.items()})


def reduce_range(scheme: Scheme) -> bool:
    """Whether weights are held from clipping: as the scheme says, or as this machine needs."""
    return product_saturates() if scheme.reduce_range is None else scheme.reduce_range


def _widths(linears: list[Linear]) -> dict[str, int]:
    """The inputs of linear layers by name, with their K."""
    return {linear.input.name or "": len(linear.matrix()) for linear in linears}


def _nearest(linear: Linear, scheme: Scheme) -> Codes:
    return weights.nearest(linear.matrix(), linear.weight.name or "", pairs=reduce_range(scheme))


def _rounded(linear: Linear, scheme: Scheme, seen: Activations) -> Codes:
    if seen.moments is None or linear.shared:  # a shared weight has one form for all that read it
        return _nearest(linear, scheme)
    low, high = seen.range
    noise = ((high - low) / 255) ** 2 / 12  # of x, rounded in equal steps
    return weights.gptq(linear.matrix(), seen.moments, noise, linear.weight.name or "", pairs=reduce_range(scheme))


def _steps(
    model: ir.Model,
    scheme: Scheme,
    linears: list[Linear],
    seen: Mapping[str, Activations],
    batches: Batches,
    progress: Progress,
) -> dict[str, tuple[np.float32, np.uint8]]:
    """Scale and zero point of each linear layer's activations."""
    ranges = {linear.input.name or "": seen[linear.name].range for linear in linears}
    if scheme.ranges != "minmax":
        progress(f"finding ranges by {scheme.ranges}")
        counts = histograms(model, _widths(linears), ranges, batches)
        ranges = {name: narrowed(counts[name], *ranges[name], scheme.ranges) for name in ranges}
    return {linear.name: scale_and_zero(*ranges[linear.input.name or ""]) for linear in linears}

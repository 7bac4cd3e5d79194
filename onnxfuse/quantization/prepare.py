"""All that is needed to write a model in int8, whichever of its linear layers take part: measured and rounded once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from onnxfuse.config import Scheme
from onnxfuse.errors import ModelError, NothingToQuantizeError, UsageError
from onnxfuse.io.progress import Progress, silent
from onnxfuse.native import functions
from onnxfuse.quantization import weights
from onnxfuse.quantization.calibration import Activations, Batches, histograms, observe
from onnxfuse.quantization.linears import Linear, find_linears, require_float, why_none
from onnxfuse.quantization.patches import PATCH_EMBEDDING
from onnxfuse.quantization.ranges import ActivationScale, narrowed, scale_and_zero
from onnxfuse.quantization.smooth import Smoothing, smooth
from onnxfuse.quantization.sources import SOURCE, part_norms
from onnxfuse.quantization.weights import Int8Weight
from onnxfuse.rewrite.passes import Context
from onnxfuse.runtime import Outputs
from onnxfuse.runtime.probes import matmul_saturates
from onnxfuse.runtime.sessions import compute, infer

UNCALIBRATED = (
    "static int8 needs calibration data; give --calibration DATA to onnxfuse quantize, or --dynamic for int8 that needs none"
)


@dataclass(frozen=True)
class Prepared:
    """A float model ready to be written in int8. All mappings are by the name of a linear layer.

    Args:
        model: the float model, smoothed; what it computes is unchanged.
        linears: what can be quantized in it.
        weights_int8: the layers' weights.
        scales: of a static model, the scales of the layers' inputs.
        smoothed: of the layers that were smoothed, the alpha.
        native: whether linear layers become our own operators again, which the model was made of.
    """

    model: ir.Model
    scheme: Scheme
    linears: tuple[Linear, ...]
    weights_int8: Mapping[str, Int8Weight]
    scales: Mapping[str, ActivationScale] = field(default_factory=dict)
    smoothed: Mapping[str, float] = field(default_factory=dict)
    native: bool = False


def require_worth(model: ir.Model) -> None:
    """Look whether a model has anything to quantize, before anything is measured. Raises ModelError as ``prepare``."""
    require_float(model)
    _apart(model)
    Context(compute, infer).apply(PATCH_EMBEDDING, model)
    _require_weights(model, find_linears(model.graph))


def prepare(
    model: ir.Model,
    scheme: Scheme,
    batches: Batches | None = None,
    progress: Progress = silent,
    count: int = 0,
    answers: list[Outputs] | None = None,
) -> Prepared:
    """Smooth a float model in place, round its weights, and find the scales of its activations.

    Args:
        batches: real inputs, given anew at each call; None rounds weights to nearest and smooths nothing.
        count: about how many these are, for ``progress``; 0 where that is not known.
        answers: receives what the float model gives, batch by batch.

    Raises:
        UsageError: a static model without calibration, or attention in a type that only our own operators have.
        ModelError: the model is int8 or fp16 already, has nothing worth quantizing, or holds something that is not finite.
    """
    require_float(model)
    native = _apart(model) and not scheme.static
    scheme = _settled(scheme, native=native)
    Context(compute, infer, prove=True).apply(PATCH_EMBEDDING, model)
    linears = find_linears(model.graph)
    _require_weights(model, linears)
    if scheme.format == SOURCE:
        part_norms(model.graph, {linear.node for linear in linears})
    if batches is None:
        if scheme.static:
            raise UsageError(UNCALIBRATED)
        progress("rounding weights")
        rounded = {linear.name: _nearest(linear, scheme, native=native) for linear in linears}
        return Prepared(model, scheme, tuple(linears), rounded, native=native)
    hessian = scheme.rounding == "gptq"
    seen = observe(model, _widths(linears), batches, hessian=hessian, progress=progress, count=count, answers=answers)
    inputs = {linear.name: seen[linear.input.name or ""] for linear in linears}
    smoothed = _smoothed(model, scheme, linears, seen, progress)
    weights_int8 = {}
    for number, linear in enumerate(linears):
        progress("rounding weights", number / len(linears), linear.role)
        if linear.name in smoothed:
            inputs[linear.name] = inputs[linear.name].divided(smoothed[linear.name].scale)
        weights_int8[linear.name] = _rounded(linear, scheme, inputs[linear.name], native=native)
    scales = _scales(model, scheme, linears, inputs, batches, progress) if scheme.static else {}
    alphas = {name: smoothing.alpha for name, smoothing in smoothed.items()}
    return Prepared(model, scheme, tuple(linears), weights_int8, scales, alphas, native)


def _apart(model: ir.Model) -> bool:
    """Take layers and linear layers of our own apart, in place; whether there were any. Attention stays: it is never int8."""
    found = functions.apart(model, ("Encoder", "Linear"))
    if found:
        functions.complete(model)
    return found


def _settled(scheme: Scheme, *, native: bool) -> Scheme:
    """A scheme as it is where our own operators compute: nothing clips, and smoothing would take away what a scale for each row
    brings (all-MiniLM-L6-v2, calibrated: cosine 0.9995 with it, 0.9998 without).

    Raises:
        UsageError: attention in a type that only our own operators have.
    """
    if not native and scheme.attention != "fp32":
        raise UsageError(
            f"--attention {scheme.attention} is a choice of dynamic int8 of our own operators; optimize the model with --target "
            "native first, or leave it out"
        )
    if not native:
        return scheme
    reduced = False if scheme.reduce_range is None else scheme.reduce_range
    return replace(scheme, smooth="off" if scheme.smooth == "auto" else scheme.smooth, reduce_range=reduced)


def reduce_range(scheme: Scheme) -> bool:
    """Whether weights are held from clipping: as the scheme says, or as this machine needs."""
    return matmul_saturates() if scheme.reduce_range is None else scheme.reduce_range


def _require_weights(model: ir.Model, linears: list[Linear]) -> None:
    """Raises ModelError where there is no linear layer, or one whose weight is not finite."""
    if not linears:
        raise NothingToQuantizeError(f"nothing in the model {model.graph.name!r} is worth quantizing: {why_none(model)}")
    for linear in linears:
        if not np.isfinite(linear.matrix()).all():
            raise ModelError(f"weight {linear.weight.name} holds NaN or infinity; the checkpoint is broken, export it again")


def _widths(linears: list[Linear]) -> dict[str, int]:
    """The inputs of linear layers by name, with their K."""
    return {linear.input.name or "": len(linear.matrix()) for linear in linears}


def _smoothed(
    model: ir.Model, scheme: Scheme, linears: list[Linear], seen: Mapping[str, Activations], progress: Progress
) -> dict[str, Smoothing]:
    """Smooth the model in place, as the scheme says; by linear layer, how."""
    if scheme.smooth == "off":
        return {}
    progress("smoothing outliers")
    alpha = None if scheme.smooth == "auto" else float(scheme.smooth)
    return smooth(model.graph, linears, seen, levels=weights.LARGEST, compensated=scheme.rounding == "gptq", alpha=alpha)


def _nearest(linear: Linear, scheme: Scheme, *, native: bool) -> Int8Weight:
    rows = _row_scale(linear, native=native)
    return weights.nearest(linear.matrix(), linear.weight.name or "", reduce_range=reduce_range(scheme), rows=rows)


def _row_scale(linear: Linear, *, native: bool) -> np.ndarray | None:
    """A scale for each row, where the layer becomes our operator: not where an embedding has the weight too."""
    return weights.row_scale(linear.matrix()) if native and not linear.swapped else None


def _rounded(linear: Linear, scheme: Scheme, seen: Activations, *, native: bool) -> Int8Weight:
    if seen.hessian is None or linear.shared:  # a shared weight is the same for all that read it
        return _nearest(linear, scheme, native=native)
    low, high = seen.range
    noise = ((high - low) / 255) ** 2 / 12  # of x, rounded in equal steps
    rows, name = _row_scale(linear, native=native), linear.weight.name or ""
    return weights.gptq(linear.matrix(), seen.hessian, noise, name, reduce_range=reduce_range(scheme), rows=rows)


def _scales(
    model: ir.Model,
    scheme: Scheme,
    linears: list[Linear],
    seen: Mapping[str, Activations],
    batches: Batches,
    progress: Progress,
) -> dict[str, ActivationScale]:
    """The scale of each linear layer's input."""
    ranges = {linear.input.name or "": seen[linear.name].range for linear in linears}
    if scheme.ranges != "minmax":
        progress(f"finding ranges by {scheme.ranges}")
        counts = histograms(model, _widths(linears), ranges, batches)
        ranges = {name: narrowed(counts[name], *ranges[name], scheme.ranges) for name in ranges}
    return {linear.name: scale_and_zero(*ranges[linear.input.name or ""]) for linear in linears}

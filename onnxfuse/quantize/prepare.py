"""Everything about a model's int8 form that does not depend on which products take part: measured and rounded once."""

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
from onnxfuse.quantize.patches import patches_to_products
from onnxfuse.quantize.products import Product, find_products, require_float, why_none
from onnxfuse.quantize.ranges import narrowed, scale_and_zero
from onnxfuse.quantize.smooth import smooth
from onnxfuse.quantize.weights import Codes
from onnxfuse.runtime.probes import product_saturates


@dataclass(frozen=True)
class Prepared:
    """A float model ready to be written in int8.

    Args:
        model: the float model, smoothed; what it computes is unchanged.
        products: what can be quantized in it.
        codes: the products' weights, by product.
        steps: of a static model, the activations' scale and zero point, by product.
        smoothed: the alpha of each product that was smoothed.
    """

    model: ir.Model
    scheme: Scheme
    products: tuple[Product, ...]
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
    products = find_products(model.graph)
    if not products:
        raise NothingToQuantizeError(f"nothing in the model {model.graph.name!r} is worth quantizing: {why_none(model)}")
    for product in products:
        if not np.isfinite(product.matrix()).all():
            raise ModelError(f"weight {product.weight.name} holds NaN or infinity; the checkpoint is broken, export it again")
    if batches is None:
        if scheme.static:
            raise UsageError("static int8 needs calibration data; give --calibration FILE, or leave --static out")
        progress("rounding weights")
        return Prepared(model, scheme, tuple(products), {p.name: _nearest(p, scheme) for p in products})
    compensated = scheme.rounding == "gptq"
    seen = observe(model, _widths(products), batches, moments=compensated, progress=progress)
    of_product = {product.name: seen[product.input.name or ""] for product in products}
    changed = {}
    if scheme.smooth != "off":
        progress("smoothing outliers")
        changed = smooth(
            model.graph,
            products,
            seen,
            levels=weights.LARGEST,
            compensated=compensated,
            alpha=None if scheme.smooth == "auto" else float(scheme.smooth),
        )
    codes = {}
    for number, product in enumerate(products):
        progress("rounding weights", number / len(products), product.role)
        if product.name in changed:
            of_product[product.name] = of_product[product.name].divided(changed[product.name][1])
        codes[product.name] = _rounded(product, scheme, of_product[product.name])
    steps = _steps(model, scheme, products, of_product, batches, progress) if scheme.static else {}
    return Prepared(model, scheme, tuple(products), codes, steps, {name: alpha for name, (alpha, _) in changed.items()})


def reduce_range(scheme: Scheme) -> bool:
    """Whether weights are held from clipping: as the scheme says, or as this machine needs."""
    return product_saturates() if scheme.reduce_range is None else scheme.reduce_range


def _widths(products: list[Product]) -> dict[str, int]:
    """The inputs of products by name, with their K."""
    return {product.input.name or "": len(product.matrix()) for product in products}


def _nearest(product: Product, scheme: Scheme) -> Codes:
    return weights.nearest(product.matrix(), product.weight.name or "", pairs=reduce_range(scheme))


def _rounded(product: Product, scheme: Scheme, seen: Activations) -> Codes:
    if seen.moments is None or product.shared:  # a shared weight has one form for all that read it
        return _nearest(product, scheme)
    low, high = seen.range
    noise = ((high - low) / 255) ** 2 / 12  # of x, rounded in equal steps
    return weights.gptq(product.matrix(), seen.moments, noise, product.weight.name or "", pairs=reduce_range(scheme))


def _steps(
    model: ir.Model,
    scheme: Scheme,
    products: list[Product],
    seen: Mapping[str, Activations],
    batches: Batches,
    progress: Progress,
) -> dict[str, tuple[np.float32, np.uint8]]:
    """Scale and zero point of each product's activations."""
    ranges = {product.input.name or "": seen[product.name].range for product in products}
    if scheme.ranges != "minmax":
        progress(f"finding ranges by {scheme.ranges}")
        counts = histograms(model, _widths(products), ranges, batches)
        ranges = {name: narrowed(counts[name], *ranges[name], scheme.ranges) for name in ranges}
    return {product.name: scale_and_zero(*ranges[product.input.name or ""]) for product in products}

"""One encoder layer as text, in the spelling that most exporters have used, and edits of it.

A spelling computes the same and must fuse as completely; a look-alike computes something else and must stay as it is, or
fuse to what it computes. ``ORT`` says what ONNX Runtime's own optimizer does with the same graphs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from onnxfuse.runtime.sessions import open_session, run
from tests.conftest import fill, parse

WEIGHTS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("wq", "wk", "wv", "wo"), (16, 16)),
    **dict.fromkeys(("bq", "bk", "bv", "bo"), (16,)),
    "w1": (16, 32),
    "b1": (32,),
    "w2": (32, 16),
    "b2": (16,),
    **dict.fromkeys(("g1", "n1", "g2", "n2"), (16,)),
}

INPUTS = {"x": "float[B,S,16]", "mask": "int64[B,S]"}
OUTPUTS = {"y": "float[B,S,16]"}

CONSTANTS = """int64[4] split = {0, 0, 4, 4}, int64[4] wide = {0, 0, 2, 8}, int64[3] merge = {0, 0, 16}, int64[1] at1 = {1},
    int64[1] at2 = {2}, int64[1] last = {-1}, int64[1] first = {0}, int64[2] at12 = {1, 2}, int64 i0 = {0}, int64 i1 = {1}, int64 i2 = {2},
    float zero = {0.0}, float one = {1.0}, float two = {2.0}, float three = {3.0}, float half = {0.5}, float odd = {0.3},
    float root = {0.70710678}, float low = {-10000.0}, float lowest = {-3.4028235e38}, float eps = {0.00001}, float bad = {-0.1},
    float sqrt2 = {1.41421356}, float cubic = {0.044715}, float inner = {0.79788456}, float q1702 = {1.702}"""

PARTS = {
    "mask": "m1 = Unsqueeze(mask, at1)  m2 = Unsqueeze(m1, at2)  m3 = Cast<to = 1>(m2)  m4 = Sub(one, m3)  bias = Mul(m4, low)",
    "project": "qm = MatMul(x, wq)  q = Add(qm, bq)  km = MatMul(x, wk)  k = Add(km, bk)  vm = MatMul(x, wv)  v = Add(vm, bv)",
    "q": "q4 = Reshape(q, split)  qt = Transpose<perm = [0, 2, 1, 3]>(q4)",
    "k": "k4 = Reshape(k, split)  kt = Transpose<perm = [0, 2, 3, 1]>(k4)",
    "v": "v4 = Reshape(v, split)  vt = Transpose<perm = [0, 2, 1, 3]>(v4)",
    "scores": "s = MatMul(qt, kt)  scaled = Div(s, two)  masked = Add(scaled, bias)",
    "softmax": "p = Softmax<axis = -1>(masked)",
    "context": "c = MatMul(p, vt)  ct = Transpose<perm = [0, 2, 1, 3]>(c)  cm = Reshape(ct, merge)",
    "output": "om = MatMul(cm, wo)  o = Add(om, bo)",
    "residual": "r = Add(o, x)",
    "norm": "mean = ReduceMean(r, last)  d = Sub(r, mean)  sq = Pow(d, two)  var = ReduceMean(sq, last)  ve = Add(var, eps)  "
    "sd = Sqrt(ve)  nd = Div(d, sd)  ng = Mul(nd, g1)  h = Add(ng, n1)",
    "up": "um = MatMul(h, w1)  u = Add(um, b1)",
    "gelu": "ud = Div(u, sqrt2)  ue = Erf(ud)  u1 = Add(ue, one)  uu = Mul(u, u1)  a = Mul(uu, half)",
    "down": "dm = MatMul(a, w2)  dn = Add(dm, b2)",
    "residual2": "r2 = Add(dn, h)",
    "norm2": "y = LayerNormalization<axis = -1, epsilon = 0.00001>(r2, g2, n2)",
}

FULL = {"attention": 1, "qkv": 1, "layer_norm": 2, "gelu": 1}

SIZES = {"B": 2, "S": 5, "T": 5}
RIGHT, LEFT, HOLES = ([1, 1, 1, 0, 0], [0, 1, 1, 1, 1], [1, 1, 0, 1, 0])
"""Rows of a mask, by where the padding is."""


WIDE_MASK = (
    PARTS["mask"].replace("bias = Mul", "b4 = Mul")
    + "  ss = Shape(x)  sn = Slice(ss, at1, at2)  e4 = Concat<axis = 0>(at1, at1, sn, at1)  bias = Expand(b4, e4)"
)
"""The mask as [B,1,S,T], which the Attention operator wants."""


@dataclass(frozen=True)
class Case:
    """An edit of the layer: parts replaced, inputs, outputs and weights added, and the counts that must come out of ``fuse``.

    ``overridable``: weights that a caller may replace; ``feeds`` does. ``masks``: the two rows of the mask.
    """

    name: str
    parts: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    weights: dict[str, tuple[int, ...]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    constants: str = ""
    functions: str = ""
    half: bool = False
    opset: int = 18
    overridable: tuple[str, ...] = ()
    masks: tuple[list[int], ...] = (RIGHT, [1] * 5)

    @property
    def tolerance(self) -> float:
        """Sums in another order: a few rounding steps of the type."""
        return 4e-3 if self.half else 1e-5

    def text(self) -> str:
        weights = WEIGHTS | self.weights
        inputs = INPUTS | self.inputs | {name: f"float[{','.join(map(str, shape))}]" for name, shape in weights.items()}
        given = ", ".join(f"{kind} {name}" for name, kind in inputs.items())
        made = ", ".join(f"{kind} {name}" for name, kind in (OUTPUTS | self.outputs).items())
        body = "\n".join((PARTS | self.parts).values())
        return f"g ({given}) => ({made}) <{CONSTANTS}{self.constants}> {{ {body} }} {self.functions}"

    def build(self) -> ir.Model:
        model = fill(parse(self.text(), opset=self.opset), **WEIGHTS | self.weights)
        if self.half:
            _halve(model)
        if self.functions:
            model.opset_imports["local"] = 1
        for name in self.overridable:
            model.graph.inputs.append(model.graph.initializers[name])
        return model

    def feeds(self, model: ir.Model, seed: int = 5) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        feeds: dict[str, Any] = {}
        for value in model.graph.inputs:
            shape = [dim if isinstance(dim, int) else SIZES[dim.value] for dim in value.shape.dims]
            kind = value.dtype.numpy()
            feeds[value.name] = (
                np.array(self.masks)
                if value.name == "mask"
                else (rng.integers(0, 2, shape) if kind.kind in "iub" else rng.standard_normal(shape)).astype(kind)
            )
        return feeds


def _halve(model: ir.Model) -> None:
    """Every float32 becomes float16; a Cast to float16 (10) and one to float32 (1) stay."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.dtype == ir.DataType.FLOAT:
            value.dtype = ir.DataType.FLOAT16
    for value in model.graph.initializers.values():
        if value.const_value.dtype == ir.DataType.FLOAT:
            array = np.clip(value.const_value.numpy(), -6e4, 6e4)
            value.const_value = ir.tensor(array.astype(np.float16))
            value.dtype = ir.DataType.FLOAT16


def edit(part: str, old: str, new: str) -> dict[str, str]:
    """One part with ``old`` replaced, which must be there."""
    assert old in PARTS[part], (part, old)
    return {part: PARTS[part].replace(old, new)}


def unbiased(*names: str) -> dict[str, str]:
    text = PARTS["project"]
    for name in names:
        text = text.replace(f"{name} = Add({name}m, b{name})", f"{name} = Identity({name}m)")
    return {"project": text}


def norm(text: str) -> dict[str, str]:
    return {"norm": text}


PACKED = "pm = MatMul(x, wp)  pb = Add(pm, bp)  p5 = Reshape(pb, five)  pt = Transpose<perm = [2, 0, 3, 1, 4]>(p5)  "
FIVE = ", int64[5] five = {0, 0, 3, 4, 4}"
PACKED_WEIGHTS = {"wp": (16, 48), "bp": (48,)}
LAYER_NORM = PARTS["norm"]
TURN = {name: PARTS[name].partition("  ")[2] for name in ("q", "k", "v")}
"""The Transpose behind each Reshape to heads."""

BMM = {
    "q": PARTS["q"] + "  qb = Reshape(qt, merged)",
    "k": "k4 = Reshape(k, split)  ku = Transpose<perm = [0, 2, 1, 3]>(k4)  "
    "kb0 = Reshape(ku, merged)  kb = Transpose<perm = [0, 2, 1]>(kb0)",
    "v": PARTS["v"] + "  vb = Reshape(vt, merged)",
    "scores": "s = MatMul(qb, kb)  sw = Div(s, two)  m4s = Reshape(sw, four)  masked = Add(m4s, bias)",
    "softmax": "p4 = Softmax<axis = -1>(masked)  p = Reshape(p4, three)",
    "context": "cb = MatMul(p, vb)  c = Reshape(cb, apart)  ct = Transpose<perm = [0, 2, 1, 3]>(c)  cm = Reshape(ct, merge)",
}
BMM_CONSTANTS = (
    ", int64[3] merged = {-1, 5, 4}, int64[4] four = {-1, 4, 5, 5}, int64[3] three = {-1, 5, 5}, int64[4] apart = {-1, 4, 5, 4}"
)
"""[B*N,S,H] with five tokens: batched products of three dimensions."""

SWAPPED = {
    "mask": "drop = Equal(mask, i0)  ds = Shape(drop)  none = ConstantOfShape(ds)  db = Where(drop, inf, none)  bias = Reshape(db, rows4)",
    "project": "xt = Transpose<perm = [1, 0, 2]>(x)  pm = MatMul(xt, wp)  pb = Add(pm, bp)  p4 = Reshape(pb, in3)  pu = Unsqueeze(p4, first)  "
    "pt = Transpose<perm = [3, 1, 2, 0, 4]>(pu)  ps = Squeeze(pt, at3)  q = Gather<axis = 0>(ps, i0)  k = Gather<axis = 0>(ps, i1)  "
    "v = Gather<axis = 0>(ps, i2)",
    **{
        name: f"{name}3 = Reshape({name}, heads3)  {name}b = Transpose<perm = [1, 0, 2]>({name}3)  {name}h = Shape({name}b)  "
        f"{name}s = Slice({name}h, at1, end)  {name}a = Concat<axis = 0>(last, four, {name}s)  {name}{'u' if name == 'k' else 't'} = Reshape({name}b, {name}a)"
        for name in ("q", "k", "v")
    },
    "context": "c = MatMul(p, vt)  ct = Transpose<perm = [2, 0, 1, 3]>(c)  cm = Reshape(ct, rows)",
    "output": "om = Gemm<transB = 1>(cm, wo, bo)  xs = Shape(xt)  lead = Slice(xs, first, at2)  back = Concat<axis = 0>(lead, last)  ot = Reshape(om, back)  "
    "o = Transpose<perm = [1, 0, 2]>(ot)",
}
SWAPPED["k"] += "  kt = Transpose<perm = [0, 1, 3, 2]>(ku)"
SWAPPED_CONSTANTS = (
    ", int64[4] in3 = {0, 0, 3, 16}, int64[1] at3 = {3}, int64[3] heads3 = {0, -1, 4}, int64[1] four = {4}, int64[1] end = {3}, "
    "int64[2] rows = {-1, 16}, int64[4] rows4 = {0, 1, 1, -1}, float inf = {-inf}"
)
"""What torch.nn.MultiheadAttention does: projections as one of [S,B,3,D], heads through [S,B*N,H], a mask of -inf."""

SPELLINGS = (
    Case("as it is", masks=(RIGHT, LEFT)),
    # norms
    Case("norm by Mul(x, x)", edit("norm", "Pow(d, two)", "Mul(d, d)")),
    Case("norm with two subtractions", edit("norm", "sq = Pow(d, two)", "d2 = Sub(r, mean)  sq = Pow(d2, two)")),
    Case("norm by Reciprocal", edit("norm", "nd = Div(d, sd)", "rs = Reciprocal(sd)  nd = Mul(d, rs)")),
    Case("norm by 1 / sqrt", edit("norm", "nd = Div(d, sd)", "rs = Div(one, sd)  nd = Mul(d, rs)")),
    Case(
        "norm with Pow and Reciprocal, gain first",
        edit("norm", "nd = Div(d, sd)  ng = Mul(nd, g1)", "rs = Reciprocal(sd)  gr = Mul(rs, g1)  ng = Mul(d, gr)"),
    ),
    Case(
        "norm as TensorFlow computes it",
        norm(
            "mean = ReduceMean(r, last)  d = Sub(r, mean)  sq = Mul(d, d)  var = ReduceMean(sq, last)  ve = Add(var, eps)  sd = Sqrt(ve)  "
            "rs = Reciprocal(sd)  gr = Mul(rs, g1)  rg = Mul(r, gr)  mg = Mul(mean, gr)  nb = Sub(n1, mg)  h = Add(rg, nb)"
        ),
    ),
    # Gelu
    Case("gelu by Mul 0.7071", edit("gelu", "Div(u, sqrt2)", "Mul(u, root)")),
    Case("gelu, half first", {"gelu": "ud = Div(u, sqrt2)  ue = Erf(ud)  u1 = Add(one, ue)  uu = Mul(half, u)  a = Mul(uu, u1)"}),
    Case(
        "gelu, half inside", {"gelu": "ud = Div(u, sqrt2)  ue = Erf(ud)  u1 = Add(ue, one)  uu = Mul(u1, half)  a = Mul(u, uu)"}
    ),
    Case(
        "gelu by erfc",
        {"gelu": "un = Neg(u)  ud = Mul(un, root)  ue = Erf(ud)  u1 = Sub(one, ue)  uu = Mul(half, u)  a = Mul(uu, u1)"},
    ),
    Case(
        "gelu by tanh",
        {
            "gelu": "u3 = Pow(u, three)  uc = Mul(u3, cubic)  ub = Add(u, uc)  ui = Mul(ub, inner)  ut = Tanh(ui)  "
            "u1 = Add(ut, one)  uu = Mul(u, u1)  a = Mul(uu, half)"
        },
    ),
    Case(
        "gelu by tanh, x*x*x",
        {
            "gelu": "u2 = Mul(u, u)  u3 = Mul(u2, u)  uc = Mul(u3, cubic)  ub = Add(u, uc)  ui = Mul(ub, inner)  "
            "ut = Tanh(ui)  u1 = Add(ut, one)  uu = Mul(u, u1)  a = Mul(uu, half)"
        },
    ),
    Case("quick gelu", {"gelu": "ud = Mul(u, q1702)  us = Sigmoid(ud)  a = Mul(u, us)"}, counts={"gelu": 0}),
    # scale
    Case("scale by Mul", edit("scores", "Div(s, two)", "Mul(s, half)")),
    Case("scale on q", {"scores": "qs = Mul(qt, half)  s = MatMul(qs, kt)  masked = Add(s, bias)"}),
    Case(
        "scale on q before the heads",
        {"q": "qs = Div(q, two)  " + PARTS["q"].replace("(q,", "(qs,"), "scores": "s = MatMul(qt, kt)  masked = Add(s, bias)"},
    ),
    Case(
        "scale split over q and k",
        {"scores": "qs = Mul(qt, root)  ks = Mul(kt, root)  s = MatMul(qs, ks)  masked = Add(s, bias)"},
    ),
    Case("scale folded into the weights", {"scores": "s = MatMul(qt, kt)  masked = Add(s, bias)"}),
    # masks
    Case("no mask", edit("scores", "Add(scaled, bias)", "Identity(scaled)")),
    Case("mask by Where", {"mask": "m1 = Unsqueeze(mask, at12)  m3 = Cast<to = 9>(m1)  bias = Where(m3, zero, low)"}),
    Case(
        "boolean mask on the scores",
        {
            "mask": "m1 = Unsqueeze(mask, at12)  m3 = Cast<to = 9>(m1)",
            "scores": "s = MatMul(qt, kt)  scaled = Div(s, two)  masked = Where(m3, scaled, low)",
        },
    ),
    Case(
        "inverted boolean mask on the scores",
        {
            "mask": "m1 = Unsqueeze(mask, at12)  m2 = Equal(m1, i0)",
            "scores": "s = MatMul(qt, kt)  scaled = Div(s, two)  masked = Where(m2, low, scaled)",
        },
    ),
    Case(
        "mask of -inf",
        {"mask": "m1 = Unsqueeze(mask, at12)  m3 = Cast<to = 9>(m1)  bias = Where(m3, zero, inf)"},
        constants=", float inf = {-inf}",
    ),
    Case("mask of finfo.min", edit("mask", "Mul(m4, low)", "Mul(m4, lowest)")),
    Case(
        "mask by -10000 * (1 - m) with one Unsqueeze",
        edit("mask", "m1 = Unsqueeze(mask, at1)  m2 = Unsqueeze(m1, at2)", "m2 = Unsqueeze(mask, at12)"),
    ),
    Case("mask of every shape: [B,1,S,T]", {"mask": WIDE_MASK}),
    Case(
        "mask expanded first, as transformers 4.57 does for SDPA",
        {
            "mask": "m1 = Unsqueeze(mask, at1)  m2 = Unsqueeze(m1, at2)  "
            "ms = Shape(mask)  mb = Slice(ms, first, at1)  mn = Slice(ms, at1, at2)  e4 = Concat<axis = 0>(mb, at1, mn, mn)  me = Expand(m2, e4)  "
            "m3 = Cast<to = 1>(me)  m4 = Sub(one, m3)  md = Cast<to = 9>(m4)  bias = Where(md, lowest, m4)"
        },
    ),
    Case(
        "the operator on [B,N,S,H]",
        opset=23,
        parts={
            "mask": WIDE_MASK,
            "k": "k4 = Reshape(k, split)  kt = Transpose<perm = [0, 2, 1, 3]>(k4)",
            "scores": "c = Attention<scale = 0.5>(qt, kt, vt, bias)",
            "softmax": "",
            "context": "ct = Transpose<perm = [0, 2, 1, 3]>(c)  cm = Reshape(ct, merge)",
        },
    ),
    Case(
        "the operator with another scale and a boolean mask",
        opset=23,
        parts={
            "mask": "m1 = Unsqueeze(mask, at12)  m2 = Cast<to = 9>(m1)  ss = Shape(x)  sn = Slice(ss, at1, at2)  "
            "e4 = Concat<axis = 0>(at1, at1, sn, at1)  bias = Expand(m2, e4)",
            "k": "k4 = Reshape(k, split)  kt = Transpose<perm = [0, 2, 1, 3]>(k4)",
            "scores": "c = Attention<scale = 0.3>(qt, kt, vt, bias)",
            "softmax": "",
            "context": "ct = Transpose<perm = [0, 2, 1, 3]>(c)  cm = Reshape(ct, merge)",
        },
    ),
    # projections
    Case(
        "merged already",
        {"project": "pm = MatMul(x, wp)  pb = Add(pm, bp)  q, k, v = Split<axis = -1>(pb, widths)"},
        weights=PACKED_WEIGHTS,
        constants=", int64[3] widths = {16, 16, 16}",
    ),
    Case(
        "packed as [B,S,3,N,H], by Gather",
        {
            "project": PACKED,
            "q": "qt = Gather<axis = 0>(pt, i0)",
            "k": "kg = Gather<axis = 0>(pt, i1)  kt = Transpose<perm = [0, 1, 3, 2]>(kg)",
            "v": "vt = Gather<axis = 0>(pt, i2)",
        },
        weights=PACKED_WEIGHTS,
        constants=FIVE,
    ),
    Case(
        "packed as [B,S,3,N,H], by Split",
        {
            "project": PACKED + "q5, k5, v5 = Split<axis = 0, num_outputs = 3>(pt)",
            "q": "qt = Squeeze(q5, first)",
            "k": "kg = Squeeze(k5, first)  kt = Transpose<perm = [0, 1, 3, 2]>(kg)",
            "v": "vt = Squeeze(v5, first)",
        },
        weights=PACKED_WEIGHTS,
        constants=FIVE,
    ),
    Case(
        "projections by Gemm",
        {
            "project": "xs = Shape(x)  lead = Slice(xs, first, at2)  back = Concat<axis = 0>(lead, last)  xf = Reshape(x, rows)  "
            "qg = Gemm(xf, wq, bq)  q = Reshape(qg, back)  kg = Gemm(xf, wk, bk)  k = Reshape(kg, back)  vg = Gemm(xf, wv, bv)  "
            "v = Reshape(vg, back)"
        },
        constants=", int64[2] rows = {-1, 16}",
    ),
    Case("projections by Einsum", {"project": PARTS["project"].replace("MatMul(", 'Einsum<equation = "bsd,de->bse">(')}),
    Case(
        "scores and context by Einsum",
        {
            "q": "q4 = Reshape(q, split)",
            "k": "k4 = Reshape(k, split)",
            "v": "v4 = Reshape(v, split)",
            "scores": PARTS["scores"].replace("MatMul(qt, kt)", 'Einsum<equation = "bsnh,btnh->bnst">(q4, k4)'),
            "context": 'c = Einsum<equation = "bnst,btnh->bsnh">(p, v4)  cm = Reshape(c, merge)',
        },
    ),
    Case("no biases", unbiased("q", "k", "v")),
    Case("no bias on k", unbiased("k")),
    Case("no bias on q and v", unbiased("q", "v")),
    Case(
        "cut by Slice, as chunk is traced",
        {
            "project": "pm = MatMul(x, wp)  pb = Add(pm, bp)  q = Slice(pb, first, c16, last)  k = Slice(pb, c16, c32, last)  v = Slice(pb, c32, c48, last)"
        },
        weights=PACKED_WEIGHTS,
        constants=", int64[1] c16 = {16}, int64[1] c32 = {32}, int64[1] c48 = {48}",
    ),
    Case(
        "packed as [B,S,N,3,H], by Gather",
        {
            "project": "pm = MatMul(x, wp)  pb = Add(pm, bp)  p5 = Reshape(pb, headed)",
            "q": "q4 = Gather<axis = 3>(p5, i0)  " + TURN["q"],
            "k": "k4 = Gather<axis = 3>(p5, i1)  " + TURN["k"],
            "v": "v4 = Gather<axis = 3>(p5, i2)  " + TURN["v"],
        },
        weights=PACKED_WEIGHTS,
        constants=", int64[5] headed = {0, 0, 4, 3, 4}",
    ),
    Case(
        "packed as [B,N,S,3*H], by Split",
        {
            "project": "pm = MatMul(x, wp)  pr = Reshape(pm, headed)  pt = Transpose<perm = [0, 2, 1, 3]>(pr)  "
            "qt, k4, vt = Split<axis = -1, num_outputs = 3>(pt)",
            "q": "",
            "k": "kt = Transpose<perm = [0, 1, 3, 2]>(k4)",
            "v": "",
        },
        weights={"wp": (16, 48)},
        constants=", int64[4] headed = {0, 0, 4, 12}",
    ),
    # batch and sequence
    Case(
        "heads merged into the batch, by bmm", BMM, constants=BMM_CONSTANTS, inputs={"x": "float[B,5,16]", "mask": "int64[B,5]"}
    ),
    Case(
        "heads merged into the batch, the mask too",
        {
            **BMM,
            "scores": BMM["scores"]
            .replace("masked = Add(m4s, bias)", "masked = Identity(m4s)")
            .replace("sw = Div(s, two)", "be = Expand(bias, each)  bm = Reshape(be, mask3)  s2 = Div(s, two)  sw = Add(bm, s2)"),
        },
        constants=BMM_CONSTANTS + ", int64[4] each = {1, 4, 1, 1}, int64[3] mask3 = {-1, 1, 5}",
        inputs={"x": "float[B,5,16]", "mask": "int64[B,5]"},
    ),
    Case("as torch.nn.MultiheadAttention writes it, on [S,B,D]", SWAPPED, weights=PACKED_WEIGHTS, constants=SWAPPED_CONSTANTS),
    Case(
        "a whole layer on [S,B,D]",
        {
            **SWAPPED,
            "output": SWAPPED["output"].replace("ot = Reshape", "o = Reshape").partition("  o = Transpose")[0],
            "residual": "r = Add(o, xt)",
            "norm2": "yt = LayerNormalization<axis = -1, epsilon = 0.00001>(r2, g2, n2)  y = Transpose<perm = [1, 0, 2]>(yt)",
        },
        weights=PACKED_WEIGHTS,
        constants=SWAPPED_CONSTANTS,
    ),
    Case(
        "as torch.nn.MultiheadAttention writes it, the batch second from the start",
        {
            **SWAPPED,
            "scores": "s = MatMul(qt, kt)  masked = Div(s, two)",
            "project": SWAPPED["project"].replace("xt = Transpose<perm = [1, 0, 2]>(x)", "xt = Identity(x)"),
            "output": SWAPPED["output"].replace("o = Transpose<perm = [1, 0, 2]>(ot)", "o = Identity(ot)"),
        },
        weights=PACKED_WEIGHTS,
        constants=SWAPPED_CONSTANTS,
    ),
    Case(
        "flattened for softmax, as opset 12 is raised",
        {"softmax": "ms = Shape(masked)  mf = Flatten<axis = 3>(masked)  pf = Softmax<axis = -1>(mf)  p = Reshape(pf, ms)"},
    ),
    # structure
    Case(
        "dropouts",
        {
            **edit("softmax", "p =", "p0 =") | {"context": "p = Dropout(p0)  " + PARTS["context"]},
            **edit("residual", "Add(o, x)", "Add(od, x)") | {"output": PARTS["output"] + "  od = Dropout(o)"},
        },
    ),
    Case("NaN repair", {"softmax": "raw = Softmax<axis = -1>(masked)  nan = IsNaN(raw)  p = Where(nan, zero, raw)"}),
    Case(
        "k transposed twice",
        {"k": "k4 = Reshape(k, split)  k3 = Transpose<perm = [0, 2, 1, 3]>(k4)  kt = Transpose<perm = [0, 1, 3, 2]>(k3)"},
    ),
    Case(
        "reshape to -1",
        constants=", int64[4] free = {0, -1, 4, 4}",
        parts={name: PARTS[name].replace("split", "free") for name in ("q", "k", "v")},
    ),
    Case(
        "gelu as a function",
        edit("gelu", PARTS["gelu"], "a = local.Gelu2(u)"),
        functions="""
        <domain: "local", opset_import: ["" : 18]> Gelu2 (u) => (a) {
            sqrt2 = Constant<value = float {1.41421356}>()  one = Constant<value = float {1.0}>()  half = Constant<value = float {0.5}>()
            ud = Div(u, sqrt2)  ue = Erf(ud)  u1 = Add(ue, one)  uu = Mul(u, u1)  a = Mul(uu, half) }""",
    ),
)


NO_ATTENTION = {"attention": 0, "qkv": 0}
NO_QKV = {"qkv": 0}
ONE_NORM = {"layer_norm": 1}
NO_GELU = {"gelu": 0}

LOOK_ALIKES = (
    # attention: scale
    Case("scale 0.3", edit("scores", "Div(s, two)", "Mul(s, odd)")),
    Case("scale is an input", edit("scores", "Div(s, two)", "Mul(s, factor)"), inputs={"factor": "float"}, counts=NO_ATTENTION),
    Case(
        "scale negative", edit("scores", "Div(s, two)", "Mul(s, minus)"), constants=", float minus = {-0.5}", counts=NO_ATTENTION
    ),
    Case(
        "scale differs by head",
        edit("scores", "Div(s, two)", "Mul(s, heads)"),
        counts=NO_ATTENTION,
        weights={"heads": (1, 4, 1, 1)},
    ),
    Case(
        "q and k scaled unequally", {"scores": "qs = Mul(qt, root)  ks = Mul(kt, odd)  s = MatMul(qs, ks)  masked = Add(s, bias)"}
    ),
    # attention: structure
    Case("softmax over queries", edit("softmax", "axis = -1", "axis = 2"), counts=NO_ATTENTION),
    Case("softmax over heads", edit("softmax", "axis = -1", "axis = 1"), counts=NO_ATTENTION),
    Case(
        "context not transposed back",
        {"context": "c = MatMul(p, vt)  cm = Reshape(c, back)"},
        constants=", int64[3] back = {0, -1, 16}",
        counts=NO_ATTENTION,
    ),
    Case(
        "k without its transpose",
        {"k": "k4 = Reshape(k, split)  k3 = Transpose<perm = [0, 2, 1, 3]>(k4)  kt = Reshape(k3, flipped)"},
        constants=", int64[4] flipped = {0, 4, 4, -1}",
        counts=NO_ATTENTION,
    ),
    Case("q and v swapped", edit("project", "qm = MatMul(x, wq)", "qm = MatMul(x, wv2)"), weights={"wv2": (16, 16)}),
    Case("probabilities are an output", outputs={"p": "float[B,4,S,S]"}, counts=NO_ATTENTION),
    Case(
        "probabilities are read elsewhere",
        {"norm2": PARTS["norm2"] + "  z = ReduceSum<keepdims = 0>(p)"},
        outputs={"z": "float"},
        counts=NO_ATTENTION,
    ),
    Case(
        "scores are read elsewhere",
        {"norm2": PARTS["norm2"] + "  z = ReduceMax<keepdims = 0>(scaled)"},
        outputs={"z": "float"},
        counts=NO_ATTENTION,
    ),
    Case("q is an output", outputs={"q": "float[B,S,16]"}, counts=NO_QKV),
    Case("k is read elsewhere", {"norm2": PARTS["norm2"] + "  z = Relu(k)"}, outputs={"z": "float[B,S,16]"}, counts=NO_QKV),
    Case("probabilities dropped by a factor", edit("context", "c = MatMul(p, vt)", "ph = Mul(p, half)  c = MatMul(ph, vt)")),
    Case(
        "cross attention, a mask as long as the queries",
        {"project": PARTS["project"].replace("MatMul(x, wk)", "MatMul(z, wk)").replace("MatMul(x, wv)", "MatMul(z, wv)")},
        inputs={"z": "float[B,T,16]"},
        counts=NO_ATTENTION,
    ),
    Case(
        "k and v from another layer",
        {"project": PARTS["project"].replace("MatMul(x, wk)", "MatMul(z, wk)").replace("MatMul(x, wv)", "MatMul(z, wv)")},
        inputs={"z": "float[B,S,16]"},
        counts=NO_QKV,
    ),
    Case(
        "v from another input",
        {"project": PARTS["project"].replace("MatMul(x, wv)", "MatMul(z, wv)")},
        inputs={"z": "float[B,S,16]"},
        counts=NO_QKV,
    ),
    Case(
        "k and v with fewer heads",
        {
            "project": PARTS["project"]
            .replace("Add(km, bk)", "Add(km, bk8)")
            .replace("Add(vm, bv)", "Add(vm, bv8)")
            .replace("wk)", "wk8)")
            .replace("wv)", "wv8)"),
            "k": "k4 = Reshape(k, grouped)  ke = Expand(k4, repeated)  kr = Reshape(ke, split)  kt = Transpose<perm = [0, 2, 3, 1]>(kr)",
            "v": "v4 = Reshape(v, grouped)  ve4 = Expand(v4, repeated)  vr = Reshape(ve4, split)  vt = Transpose<perm = [0, 2, 1, 3]>(vr)",
        },
        weights={"wk8": (16, 8), "wv8": (16, 8), "bk8": (8,), "bv8": (8,)},
        counts=NO_ATTENTION,
        constants=", int64[5] grouped = {0, 0, 2, 1, 4}, int64[5] repeated = {1, 1, 1, 2, 1}",
    ),
    Case(
        "v heads of another size",
        {
            "project": PARTS["project"].replace("MatMul(x, wv)", "MatMul(x, wv8)").replace("Add(vm, bv)", "Add(vm, bv8)"),
            "v": PARTS["v"].replace("split", "narrow"),
            "context": PARTS["context"].replace("merge", "merge8"),
            "output": PARTS["output"].replace("wo", "wo8"),
        },
        weights={"wv8": (16, 8), "bv8": (8,), "wo8": (8, 16)},
        counts=NO_ATTENTION,
        constants=", int64[4] narrow = {0, 0, 4, 2}, int64[3] merge8 = {0, 0, 8}",
    ),
    Case(
        "more heads in q and k than in v",
        {name: PARTS[name].replace("split", "many") for name in ("q", "k")}
        | {
            "v": "v2 = Concat<axis = -1>(v, v)  " + PARTS["v"].replace("(v,", "(v2,").replace("split", "many4"),
            "context": PARTS["context"].replace("merge", "merge32"),
            "output": "om = MatMul(cm, wo32)  o = Add(om, bo)",
        },
        weights={"wo32": (32, 16)},
        constants=", int64[4] many = {0, 0, 8, 2}, int64[4] many4 = {0, 0, 8, 4}, int64[3] merge32 = {0, 0, 32}",
        counts=NO_ATTENTION,
    ),
    Case(
        "the operator, causal",
        opset=23,
        counts=NO_QKV,
        parts={
            "mask": WIDE_MASK,
            "k": "k4 = Reshape(k, split)  kt = Transpose<perm = [0, 2, 1, 3]>(k4)",
            "scores": "c = Attention<scale = 0.5, is_causal = 1>(qt, kt, vt, bias)",
            "softmax": "",
            "context": "ct = Transpose<perm = [0, 2, 1, 3]>(c)  cm = Reshape(ct, merge)",
        },
    ),
    # batch, sequence and heads
    Case(
        "heads before the batch in k alone",
        {**BMM, "k": BMM["k"].replace("ku = Transpose<perm = [0, 2, 1, 3]>", "ku = Transpose<perm = [2, 0, 1, 3]>")},
        constants=BMM_CONSTANTS,
        counts=NO_ATTENTION,
        inputs={"x": "float[B,5,16]", "mask": "int64[B,5]"},
    ),
    Case(
        "softmax over rows flattened with their queries",
        {"softmax": "ms = Shape(masked)  mf = Flatten<axis = 2>(masked)  pf = Softmax<axis = -1>(mf)  p = Reshape(pf, ms)"},
        counts=NO_ATTENTION,
    ),
    Case(
        "v cut where k is",
        {
            "project": "pm = MatMul(x, wp)  pb = Add(pm, bp)  q = Slice(pb, first, c16, last)  k = Slice(pb, c16, c32, last)  v = Slice(pb, c16, c32, last)"
        },
        weights=PACKED_WEIGHTS,
        constants=", int64[1] c16 = {16}, int64[1] c32 = {32}",
        counts=NO_ATTENTION,
    ),
    Case(
        "parts cut across heads",
        {
            "project": "pm = MatMul(x, wp)  pb = Add(pm, bp)  q = Slice(pb, c8, c24, last)  k = Slice(pb, c16, c32, last)  v = Slice(pb, c24, c40, last)"
        },
        weights=PACKED_WEIGHTS,
        constants=", int64[1] c8 = {8}, int64[1] c16 = {16}, int64[1] c24 = {24}, int64[1] c32 = {32}, int64[1] c40 = {40}",
        counts=NO_QKV,
    ),
    # masks
    Case("mask [B,1,S,T] from outside", {"mask": "bias = Identity(m4d)"}, inputs={"m4d": "float[B,1,S,S]"}),
    Case("mask [B,N,S,T] from outside", {"mask": "bias = Identity(m4d)"}, inputs={"m4d": "float[B,4,S,S]"}),
    Case("mask [S,T] from outside", {"mask": "bias = Identity(m2d)"}, inputs={"m2d": "float[S,S]"}),
    Case(
        "mask [B,S,T], ambiguous with heads",
        {"mask": "bias = Identity(m3d)"},
        inputs={"m3d": "float[4,S,S]"},
        counts=NO_ATTENTION,
    ),
    Case(
        "causal mask beside padding",
        {
            "mask": PARTS["mask"].replace("bias =", "pad =")
            + "  sh = Shape(x)  count = Gather(sh, i1)  rg = Range(i0, count, i1)  rq = Unsqueeze(rg, at1)  rk = Unsqueeze(rg, first)  "
            "later = Greater(rk, rq)  cb = Where(later, low, zero)  bias = Add(pad, cb)"
        },
    ),
    Case(
        "relative position bias",
        {"mask": PARTS["mask"].replace("bias =", "pad =") + "  bias = Add(pad, table)"},
        inputs={"table": "float[1,4,S,S]"},
    ),
    Case(
        "mask added after softmax",
        {"scores": "s = MatMul(qt, kt)  scaled = Div(s, two)", "softmax": "p0 = Softmax<axis = -1>(scaled)  p = Add(p0, bias)"},
        counts=NO_ATTENTION,
    ),
    Case("mask multiplied", edit("scores", "Add(scaled, bias)", "Mul(scaled, bias)"), counts=NO_ATTENTION),
    Case(
        "mask added before the scale",
        {"scores": "s = MatMul(qt, kt)  ms = Add(s, bias)  masked = Div(ms, two)"},
        counts=NO_ATTENTION,
    ),
    Case("Where branches swapped", {"mask": "m1 = Unsqueeze(mask, at12)  m3 = Cast<to = 9>(m1)  bias = Where(m3, low, zero)"}),
    Case(
        "scores filled with -5, a weight that counts",
        {
            "mask": "m1 = Unsqueeze(mask, at12)  m3 = Cast<to = 9>(m1)",
            "scores": "s = MatMul(qt, kt)  scaled = Div(s, two)  masked = Where(m3, scaled, mild)",
        },
        constants=", float mild = {-5.0}",
        counts=NO_ATTENTION,
    ),
    Case(
        "scores filled where the mask is 1",
        masks=(RIGHT, LEFT),
        parts={
            "mask": "m1 = Unsqueeze(mask, at12)  m3 = Cast<to = 9>(m1)",
            "scores": "s = MatMul(qt, kt)  scaled = Div(s, two)  masked = Where(m3, low, scaled)",
        },
    ),
    Case("a mild additive mask of -5", edit("mask", "Mul(m4, low)", "Mul(m4, mild)"), constants=", float mild = {-5.0}"),
    Case(
        "NaN repair that is needed",
        {
            "mask": "m1 = Unsqueeze(mask, at12)  m3 = Cast<to = 9>(m1)  bias = Where(m3, inf, inf)",
            "softmax": "raw = Softmax<axis = -1>(masked)  nan = IsNaN(raw)  p = Where(nan, zero, raw)",
        },
        constants=", float inf = {-inf}",
        counts=NO_ATTENTION,
    ),
    Case("padding on the left", masks=(LEFT, [1] * 5)),
    Case("padding with holes", masks=(HOLES, [1] * 5)),
    # weights
    Case(
        "wk is shared with another product",
        {"norm2": PARTS["norm2"] + "  z = MatMul(x, wk)"},
        outputs={"z": "float[B,S,16]"},
        counts=NO_QKV,
    ),
    Case("wq is an output", {"norm2": PARTS["norm2"] + "  z = Identity(wq)"}, outputs={"z": "float[16,16]"}, counts=NO_QKV),
    Case("wv can be overridden", overridable=("wv",), counts=NO_QKV),
    Case("bq can be overridden", overridable=("bq",), counts=NO_QKV),
    Case("a gain can be overridden", overridable=("g1",)),
    Case(
        "Gemm with alpha",
        {
            "project": "xs = Shape(x)  lead = Slice(xs, first, at2)  back = Concat<axis = 0>(lead, last)  xf = Reshape(x, rows)  "
            "qg = Gemm<alpha = 0.5>(xf, wq, bq)  q = Reshape(qg, back)  km = MatMul(x, wk)  k = Add(km, bk)  vm = MatMul(x, wv)  "
            "v = Add(vm, bv)"
        },
        constants=", int64[2] rows = {-1, 16}",
        counts=NO_QKV,
    ),
    # norms
    Case("norm over tokens", edit("norm", "mean = ReduceMean(r, last)", "mean = ReduceMean(r, at1)"), counts=ONE_NORM),
    Case("variance over tokens", edit("norm", "var = ReduceMean(sq, last)", "var = ReduceMean(sq, at1)"), counts=ONE_NORM),
    Case(
        "exponent 3",
        norm(LAYER_NORM.replace("Pow(d, two)", "Pow(d, three)").replace("eps", "large")),
        counts=ONE_NORM,
        constants=", float large = {100.0}",
    ),
    Case(
        "two different means",
        edit("norm", "sq = Pow(d, two)", "mean2 = ReduceMean(o, last)  d2 = Sub(r, mean2)  sq = Pow(d2, two)"),
        counts=ONE_NORM,
    ),
    Case(
        "keepdims 0",
        edit("norm", "mean = ReduceMean(r, last)", "m0 = ReduceMean<keepdims = 0>(r, last)  mean = Unsqueeze(m0, last)"),
        counts=ONE_NORM,
    ),
    Case("epsilon missing", edit("norm", "ve = Add(var, eps)  sd = Sqrt(ve)", "sd = Sqrt(var)"), counts=ONE_NORM),
    Case("epsilon of the operator missing", edit("norm2", "axis = -1, epsilon = 0.00001", "axis = -1")),
    Case(
        "epsilon negative",
        edit("norm", "Add(var, eps)", "Add(var, small)"),
        constants=", float small = {-0.001}",
        counts=ONE_NORM,
    ),
    Case("epsilon is an input", edit("norm", "Add(var, eps)", "Add(var, e)"), inputs={"e": "float"}, counts=ONE_NORM),
    Case(
        "epsilon added after the root",
        edit("norm", "ve = Add(var, eps)  sd = Sqrt(ve)", "sq2 = Sqrt(var)  sd = Add(sq2, eps)"),
        counts=ONE_NORM,
    ),
    Case("gain of another shape", edit("norm", "Mul(nd, g1)", "Mul(nd, gains)"), weights={"gains": (5, 16)}),
    Case("a scalar gain", edit("norm", "Mul(nd, g1)", "Mul(nd, three)")),
    Case(
        "RMS norm",
        edit("norm", "mean = ReduceMean(r, last)  d = Sub(r, mean)  sq = Pow(d, two)", "d = Identity(r)  sq = Pow(r, two)"),
        counts=ONE_NORM,
    ),
    Case("mean read elsewhere", {"norm2": PARTS["norm2"] + "  z = Relu(mean)"}, outputs={"z": "float[B,S,1]"}, counts=ONE_NORM),
    Case("variance is an output", outputs={"var": "float[B,S,1]"}, counts=ONE_NORM),
    Case("mean minus x", edit("norm", "Sub(r, mean)", "Sub(mean, r)"), counts=ONE_NORM),
    Case("divided by the variance", edit("norm", "nd = Div(d, sd)", "nd = Div(d, ve)  sx = Identity(sd)"), counts=ONE_NORM),
    # residuals
    Case("residual that broadcasts", edit("residual", "Add(o, x)", "Add(o, xb)"), inputs={"xb": "float[1,S,16]"}),
    Case("residual of one row", edit("residual", "Add(o, x)", "Add(o, xb)"), inputs={"xb": "float[16]"}),
    Case("residual is twice the same", edit("residual", "Add(o, x)", "Add(o, o)")),
    Case(
        "residual feeds two norms",
        {"norm2": PARTS["norm2"] + "  z = LayerNormalization<axis = -1, epsilon = 0.001>(r, g2, n1)"},
        outputs={"z": "float[B,S,16]"},
        counts={"layer_norm": 3},
    ),
    Case("residual is an output", outputs={"r": "float[B,S,16]"}),
    Case(
        "norm2 over two axes",
        {"norm2": "y = LayerNormalization<axis = 1, epsilon = 0.00001>(r2, gw, nw)"},
        inputs={"gw": "float[S,16]", "nw": "float[S,16]"},
    ),
    # Gelu
    Case("gelu with 0.7072", edit("gelu", "Div(u, sqrt2)", "Mul(u, off)"), constants=", float off = {0.7102}", counts=NO_GELU),
    Case("gelu with 1.01", edit("gelu", "Add(ue, one)", "Add(ue, off)"), constants=", float off = {1.01}", counts=NO_GELU),
    Case("gelu with 0.51", edit("gelu", "Mul(uu, half)", "Mul(uu, off)"), constants=", float off = {0.51}", counts=NO_GELU),
    Case(
        "gelu times another tensor",
        edit("gelu", "uu = Mul(u, u1)", "uu = Mul(t, u1)"),
        inputs={"t": "float[B,S,32]"},
        counts=NO_GELU,
    ),
    Case("gelu inner value is an output", outputs={"ue": "float[B,S,32]"}, counts=NO_GELU),
    Case("gelu of the negative", edit("gelu", "ud = Div(u, sqrt2)", "un = Neg(u)  ud = Div(un, sqrt2)"), counts=NO_GELU),
    Case(
        "tanh gelu with another cubic",
        {
            "gelu": "u3 = Pow(u, three)  uc = Mul(u3, off)  ub = Add(u, uc)  ui = Mul(ub, inner)  "
            "ut = Tanh(ui)  u1 = Add(ut, one)  uu = Mul(u, u1)  a = Mul(uu, half)"
        },
        constants=", float off = {0.0547}",
        counts=NO_GELU,
    ),
    # position ids, subgraphs, types
    Case(
        "x is captured by an If",
        {
            "project": PARTS["project"].replace(
                "qm = MatMul(x, wq)",
                """one1 = Identity(i1)  yes = Equal(one1, gate)
         qm = If (yes) <then_branch = then () => (float[P,Q,R] t) { t = MatMul(x, wq) }, else_branch = other () => (float[P,Q,R] f)
         { f = MatMul(x, wk) }>""",
            )
        },
        inputs={"gate": "int64"},
        counts=NO_QKV,
    ),
    Case(
        "scores are captured by an If",
        {
            "norm2": PARTS["norm2"]
            + """  yes = Equal(i1, gate)  z = If (yes) <
         then_branch = then () => (float t) { t = ReduceMax<keepdims = 0>(scaled) },
         else_branch = other () => (float f) { f = ReduceMax<keepdims = 0>(ue) }>"""
        },
        inputs={"gate": "int64"},
        outputs={"z": "float"},
        counts=NO_ATTENTION | NO_GELU,
    ),
    Case(
        "an If shadows the names of the layer",
        {
            "norm2": PARTS["norm2"]
            + """  yes = Equal(i1, gate)  z = If (yes) <
         then_branch = then () => (float[P,Q,R] p2) { q9 = Relu(x)  p2 = Mul(q9, half) },
         else_branch = other () => (float[P,Q,R] p3) { q9 = Tanh(x)  p3 = Mul(q9, half) }>"""
        },
        inputs={"gate": "int64"},
        outputs={"z": "float[B,S,16]"},
    ),
    Case(
        "a Loop reads k",
        {
            "norm2": PARTS["norm2"]
            + """  go = Equal(i1, i1)  z = Loop (i2, go, x) <
         body = each (int64 n, bool c, float[B,S,16] l) => (bool c2, float[B,S,16] l2) { c2 = Identity(c)  l2 = Add(l, k) }>"""
        },
        outputs={"z": "float[B,S,16]"},
        counts=NO_QKV,
    ),
    Case(
        "float32 softmax inside float16",
        {
            "mask": PARTS["mask"].replace("to = 1>", "to = 10>"),
            "softmax": "wm = Cast<to = 1>(masked)  pf = Softmax<axis = -1>(wm)  p = Cast<to = 10>(pf)",
        },
        half=True,
        counts=NO_ATTENTION,
    ),
    Case("float16", {"mask": PARTS["mask"].replace("to = 1>", "to = 10>")}, half=True),
)

ORT = {
    "softmax over queries": "wrong",
    "softmax over heads": "wrong",
    "probabilities are an output": "fails",
    "probabilities are read elsewhere": "fails",
    "scores are read elsewhere": "fails",
    "q is an output": "fails",
    "k is read elsewhere": "fails",
    "padding on the left": "wrong",
    "padding with holes": "wrong",
    "wk is shared with another product": "fails",
    "norm over tokens": "wrong",
    "variance over tokens": "wrong",
    "exponent 3": "wrong",
    "epsilon negative": "fails",
    "mean minus x": "wrong",
    "variance is an output": "fails",
    "residual is twice the same": "fails",
    "norm2 over two axes": "fails",
    "gelu inner value is an output": "fails",
    "scores are captured by an If": "fails",
    "a Loop reads k": "fails",
}
"""What ONNX Runtime's optimizer (onnxruntime.transformers.optimizer, model type bert, its result run with default options) does
with a look-alike: ``wrong`` outputs, or it ``fails`` (it raises, or writes a model that does not load). The others come out right.
"""


def ort_verdict(case: Case, folder: Path) -> str:
    """Run ONNX Runtime's optimizer on a case: right, wrong or fails."""
    from onnxruntime.transformers.optimizer import optimize_model

    model = case.build()
    proto, feeds = ir.to_proto(model), case.feeds(model)
    wanted = run(open_session(proto.SerializeToString(), optimize=False), feeds)
    onnx.save(proto, folder / "model.onnx")
    try:
        optimized = optimize_model(str(folder / "model.onnx"), model_type="bert").model
        got = run(open_session(optimized.SerializeToString()), feeds)
    except Exception:  # noqa: BLE001 - whatever it raises, it failed
        return "fails"
    return "right" if set(got) == set(wanted) and all(close(wanted[n], got[n], case.tolerance) for n in wanted) else "wrong"


def close(wanted: np.ndarray, got: np.ndarray, tolerance: float) -> bool:
    """Equal to ``tolerance`` of the largest value; nothing infinite."""
    if wanted.shape != got.shape or not np.isfinite(wanted).all():
        return False
    return float(np.abs(wanted.astype(np.float64) - got).max()) <= tolerance * max(1.0, float(np.abs(wanted).max()))

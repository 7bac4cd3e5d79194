// The tiles of attention: scores, exponents and values of one block of queries and one block of keys. See attention.h.
#pragma once

#include "vectors.h"

namespace onnxfuse {
namespace {
namespace attention {

using namespace vectors;

constexpr int kKeyTile = kLanes == 16 ? 8 : 4;   // keys x 3 vectors of queries are a tile of scores
constexpr int kHeadTile = kLanes == 16 ? 4 : 2;  // 6 queries x so many vectors of a head are a tile of values
constexpr int kQueryTile = 6;
constexpr float kLog2e = 1.44269504f;
constexpr float kNone = -__builtin_huge_valf();

// Products in float32: one element at a time.
struct Singles {
  static constexpr int kWide = 1;
  using Element = float;
  using Vector = Floats;
  static Vector load(const float* from) { return vectors::load(from); }
  static Vector all(float v) { return vectors::all(v); }
  static Floats dot(Vector a, Vector b, Floats sum) { return fma(a, b, sum); }
};

#if defined(__AVX512BF16__)
// Products in bfloat16: two elements, side by side in 32 bits, at a time.
struct Pairs {
  static constexpr int kWide = 2;
  using Element = uint32_t;
  using Vector = __m512i;
  static Vector load(const uint32_t* from) { return _mm512_loadu_si512(from); }
  static Vector all(uint32_t v) { return _mm512_set1_epi32(static_cast<int>(v)); }
  static Floats dot(Vector a, Vector b, Floats sum) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
  // 32 floats, rounded, as they lie.
  static Vector rounded(Floats first, Floats second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }
  // 16 pairs of one of `first` and one of `second`.
  static Vector zipped(Floats first, Floats second) {
    const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5,
                                           20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(order, rounded(first, second));
  }
};
#endif

// scores [kKeyCount][V * kLanes] of keys k (`stride` elements apart) and turned queries [steps][V * kLanes]; `most` is raised to
// them. bias: of these keys, or null.
template <class Form, int kKeyCount, int V>
inline void score_tile(const typename Form::Element* turned, const typename Form::Element* k, int64_t stride, int64_t steps,
                       const float* bias, float* scores, Floats* most) {
  Floats sum[kKeyCount][V];
#pragma GCC unroll 16
  for (int t = 0; t < kKeyCount; ++t)
#pragma GCC unroll 16
    for (int l = 0; l < V; ++l) sum[t][l] = all(0);
  for (int64_t h = 0; h < steps; ++h) {
    typename Form::Vector q[V];
#pragma GCC unroll 16
    for (int l = 0; l < V; ++l) q[l] = Form::load(turned + (h * V + l) * kLanes);
#pragma GCC unroll 16
    for (int t = 0; t < kKeyCount; ++t) {
      const typename Form::Vector key = Form::all(k[t * stride + h]);
#pragma GCC unroll 16
      for (int l = 0; l < V; ++l) sum[t][l] = Form::dot(key, q[l], sum[t][l]);
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < kKeyCount; ++t) {
    const Floats added = all(bias ? bias[t] : 0);
#pragma GCC unroll 16
    for (int l = 0; l < V; ++l) {
      const Floats score = sum[t][l] + added;
      most[l] = larger(most[l], score);
      store(scores + (t * V + l) * kLanes, score);
    }
  }
}

// scores [keys][V * kLanes] of one block of keys, and `most` [V * kLanes] raised to them.
template <class Form, int V>
void score(const typename Form::Element* turned, const typename Form::Element* k, int64_t stride, int64_t steps, int64_t keys,
           const float* bias, float* scores, float* most) {
  constexpr int kTile = V == 1 ? 2 * kKeyTile : kKeyTile, lanes = V * kLanes;
  Floats best[V];
  for (int l = 0; l < V; ++l) best[l] = load(most + l * kLanes);
  int64_t t = 0;
  for (; t + kTile <= keys; t += kTile)
    score_tile<Form, kTile, V>(turned, k + t * stride, stride, steps, bias ? bias + t : nullptr, scores + t * lanes, best);
  for (; t + 4 <= keys; t += 4)
    score_tile<Form, 4, V>(turned, k + t * stride, stride, steps, bias ? bias + t : nullptr, scores + t * lanes, best);
  for (; t < keys; ++t)
    score_tile<Form, 1, V>(turned, k + t * stride, stride, steps, bias ? bias + t : nullptr, scores + t * lanes, best);
  for (int l = 0; l < V; ++l) store(most + l * kLanes, best[l]);
}

// exp(scores - most): where all so far is -inf, all are 0.
struct Shares {
  Floats most;
  explicit Shares(Floats raw) : most(raw == all(kNone) ? all(0) : raw) {}
  Floats operator()(Floats score) const { return exp2((score - most) * all(kLog2e)); }
};

// scores [keys][V * kLanes] become exp(scores - most), in pairs of keys where Form has them; total = total * factor + their sums.
template <class Form, int V>
void exponents(float* scores, int64_t keys, const float* most, const float* factor, float* total) {
  constexpr int lanes = V * kLanes;
  for (int l = 0; l < lanes; l += kLanes) {
    const Shares share(load(most + l));
    Floats sum[4] = {load(total + l) * load(factor + l), all(0), all(0), all(0)};
    float* at = scores + l;
    float* to = at;
    const auto put = [&](Floats first, Floats second) {
#if defined(__AVX512BF16__)
      if (Form::kWide == 2) {
        _mm512_storeu_si512(to, Pairs::zipped(first, second));
        to += lanes;
        return;
      }
#endif
      store(to, first);
      store(to + lanes, second);
      to += 2 * lanes;
    };
    int64_t t = 0;
    for (; t + 4 <= keys; t += 4) {
      Floats p[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        p[i] = share(load(at + (t + i) * lanes));
        sum[i] += p[i];
      }
      put(p[0], p[1]);
      put(p[2], p[3]);
    }
    for (; t + 2 <= keys; t += 2) {
      const Floats first = share(load(at + t * lanes)), second = share(load(at + (t + 1) * lanes));
      sum[0] += first;
      sum[1] += second;
      put(first, second);
    }
    if (t < keys) {
      const Floats last = share(load(at + t * lanes));
      sum[0] += last;
      if (Form::kWide == 2) put(last, all(0));
      else store(to, last);
    }
    store(total + l, (sum[0] + sum[1]) + (sum[2] + sum[3]));
  }
}

// Where a tile of values goes: to = (from * before + p v) * after; from (with before) and after may be null.
struct Target {
  const float* from;
  float* to;
  int64_t from_stride, to_stride;
  const float *before, *after;  // a factor of each query
};

// R queries from p [steps][lanes], H vectors of values v [steps][H * kLanes], `stride` elements apart.
template <class Form, int R, int H>
inline void value_tile(const typename Form::Element* p, int64_t lanes, const typename Form::Element* v, int64_t stride,
                       int64_t steps, const Target& target) {
  Floats sum[R][H];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int h = 0; h < H; ++h)
      sum[r][h] = target.from ? load(target.from + r * target.from_stride + h * kLanes) * all(target.before[r]) : all(0);
  for (int64_t t = 0; t < steps; ++t) {
    typename Form::Vector value[H];
#pragma GCC unroll 16
    for (int h = 0; h < H; ++h) value[h] = Form::load(v + h * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const typename Form::Vector share = Form::all(p[r]);
#pragma GCC unroll 16
      for (int h = 0; h < H; ++h) sum[r][h] = Form::dot(share, value[h], sum[r][h]);
    }
    p += lanes, v += stride;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    const Floats after = all(target.after ? target.after[r] : 1);
#pragma GCC unroll 16
    for (int h = 0; h < H; ++h) store(target.to + r * target.to_stride + h * kLanes, sum[r][h] * after);
  }
}

// All `queries` of a block, H vectors of values.
template <class Form, int H>
void value_column(const typename Form::Element* p, int64_t lanes, const typename Form::Element* v, int64_t stride, int64_t steps,
                  int64_t queries, Target target) {
  constexpr int kTile = H <= 2 && kLanes == 16 ? 2 * kQueryTile : kQueryTile;
  int64_t q = 0;
  const auto step = [&](int64_t count) {
    q += count;
    target.to += count * target.to_stride;
    if (target.from) target.from += count * target.from_stride, target.before += count;
    if (target.after) target.after += count;
  };
  for (; q + kTile <= queries; step(kTile)) value_tile<Form, kTile, H>(p + q, lanes, v, stride, steps, target);
  for (; q + 4 <= queries; step(4)) value_tile<Form, 4, H>(p + q, lanes, v, stride, steps, target);
  for (; q + 2 <= queries; step(2)) value_tile<Form, 2, H>(p + q, lanes, v, stride, steps, target);
  for (; q < queries; step(1)) value_tile<Form, 1, H>(p + q, lanes, v, stride, steps, target);
}

}  // namespace attention
}  // namespace
}  // namespace onnxfuse

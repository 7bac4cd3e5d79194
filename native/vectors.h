// Float vectors of the instruction set that the including file is compiled for: 16, 8 or 4 lanes.
#pragma once

#include <stdint.h>
#include <string.h>

#if defined(__AVX2__)
#include "intrinsics.h"
#endif

namespace onnxfuse {
namespace {
namespace vectors {

#if defined(__AVX512F__)

constexpr int kLanes = 16;
using Floats = __m512;
typedef int32_t Mask __attribute__((vector_size(4 * kLanes)));

inline Floats load(const float* from) { return _mm512_loadu_ps(from); }
inline void store(float* to, Floats v) { _mm512_storeu_ps(to, v); }
inline Floats all(float v) { return _mm512_set1_ps(v); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats larger(Floats a, Floats b) { return _mm512_max_ps(a, b); }  // b where one is NaN

// 2^x; exactly 0 where x < -110, NaN of NaN. x <= 0 is what it is for.
inline Floats exp2(Floats x) {
  const Floats whole = _mm512_roundscale_ps(x, 0), f = _mm512_sub_ps(x, whole);
  Floats p = fma(all(0x1.5f3e54p-10f), f, all(0x1.3b2d4cp-7f));
  p = fma(p, f, all(0x1.c6aee8p-5f));
  p = fma(p, f, all(0x1.ebfbdcp-3f));
  p = fma(p, f, all(0x1.62e430p-1f));
  p = fma(p, f, all(1.0f));
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, all(-110.0f), _CMP_NLT_UQ), p, whole);
}

#else

#if defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif
typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef int32_t Mask __attribute__((vector_size(4 * kLanes)));

inline Floats load(const float* from) {
  Floats v;
  memcpy(&v, from, sizeof v);
  return v;
}
inline void store(float* to, Floats v) { memcpy(to, &v, sizeof v); }
inline Floats all(float v) { return v - Floats{}; }

#if defined(__AVX2__)
inline Floats fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats larger(Floats a, Floats b) { return _mm256_max_ps(a, b); }  // b where one is NaN
#else
inline Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }  // b where one is NaN
#endif

// 2^x; exactly 0 where x < -110, NaN of NaN. x <= 0 is what it is for.
inline Floats exp2(Floats x) {
  const Floats shift = all(12582912.0f);  // 1.5 * 2^23: its sum with x has round(x) in the low bits
  const Floats shifted = x + shift, f = x - (shifted - shift);
  Floats p = fma(all(0x1.5f3e54p-10f), f, all(0x1.3b2d4cp-7f));
  p = fma(p, f, all(0x1.c6aee8p-5f));
  p = fma(p, f, all(0x1.ebfbdcp-3f));
  p = fma(p, f, all(0x1.62e430p-1f));
  p = fma(p, f, all(1.0f));
  const Words scaled = (Words)p + ((Words)shifted << 23), kept = (Words)~(Mask)(x < all(-110.0f));
  return (Floats)((x == x ? scaled : (Words)x) & kept);
}

#endif

// Rows become columns: kLanes vectors, in steps that interleave the first half of them with the second.
inline void transpose(Floats* rows) {
  Mask low, high;  // where an interleaved vector's elements come from: 0, kLanes, 1, kLanes + 1, ...
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) low[i] = i / 2 + i % 2 * kLanes, high[i] = low[i] + kLanes / 2;
#pragma GCC unroll 4
  for (int step = 1; step < kLanes; step *= 2) {
    Floats mixed[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      mixed[2 * i] = __builtin_shuffle(rows[i], rows[i + kLanes / 2], low);
      mixed[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + kLanes / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = mixed[i];
  }
}

}  // namespace vectors
}  // namespace
}  // namespace onnxfuse

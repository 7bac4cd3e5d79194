// Tiles of up to 6 rows x 16 columns on AVX2: 12 accumulators, kept in registers by asm statements. The including file gives
// those of int8, `dot_bytes`, with the group of its panels.
#pragma once

#include "gelu_ymm.h"

namespace onnxfuse {
namespace {

inline void fma_into(__m256& sum, __m256 a, __m256 w) { asm("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(w)); }

template <int R>
void store_sums(void* sums, const __m256 (&sum)[R][2]) {
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    _mm256_storeu_ps(static_cast<float*>(sums) + r * 16, sum[r][0]);
    _mm256_storeu_ps(static_cast<float*>(sums) + r * 16 + 8, sum[r][1]);
  }
}

template <int R>
void dot_floats(const char* a, int64_t stride, const void* panel, int64_t K, void* sums) {
  const float* w = static_cast<const float*>(panel);
  __m256 sum[R][2];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
  for (int64_t k = 0; k < K; ++k, w += 16) {
    const __m256 w0 = _mm256_loadu_ps(w), w1 = _mm256_loadu_ps(w + 8);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const __m256 x = _mm256_broadcast_ss(reinterpret_cast<const float*>(a + r * stride) + k);
      fma_into(sum[r][0], x, w0);
      fma_into(sum[r][1], x, w1);
    }
  }
  store_sums<R>(sums, sum);
}

// Eight pairs' lower or upper halves as floats; in assembly, for GCC would keep the pairs in registers that sums need.
template <int kHalf>
inline __m256 half_of(const __m256i* pairs, __m256i upper) {
  __m256 value;
  if (kHalf)
    asm("vpand %1, %2, %0" : "=x"(value) : "m"(*pairs), "x"(upper));
  else
    asm("vmovdqu %1, %0\n\tvpslld $16, %0, %0" : "=x"(value) : "m"(*pairs));
  return value;
}

template <int kHalf, int R>
inline void add_half(__m256 (&sum)[R][2], const char* a, int64_t stride, const __m256i* w, __m256i upper) {
  const __m256 w0 = half_of<kHalf>(w, upper), w1 = half_of<kHalf>(w + 1, upper);
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    const __m256 x = _mm256_broadcast_ss(reinterpret_cast<const float*>(a + r * stride) + kHalf);
    fma_into(sum[r][0], x, w0);
    fma_into(sum[r][1], x, w1);
  }
}

// Of rows that are floats and a panel [K/2][16][2] of bfloat16.
template <int R>
void dot_bfloat16(const char* a, int64_t stride, const void* panel, int64_t K, void* sums) {
  const __m256i* w = static_cast<const __m256i*>(panel);
  const __m256i upper = _mm256_set1_epi32(-65536);
  __m256 sum[R][2];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_ps();
  for (int64_t k = 0; k < K; k += 2, w += 2, a += 8) {
    add_half<0, R>(sum, a, stride, w, upper);
    add_half<1, R>(sum, a, stride, w, upper);
  }
  store_sums<R>(sums, sum);
}

template <int R>
void store_sums(void* sums, const __m256i (&sum)[R][2]) {
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    _mm256_storeu_si256(static_cast<__m256i*>(sums) + r * 2, sum[r][0]);
    _mm256_storeu_si256(static_cast<__m256i*>(sums) + r * 2 + 1, sum[r][1]);
  }
}

// Four bytes at p in every lane.
inline __m256i broadcast(const char* p) {
  int32_t four;
  memcpy(&four, p, sizeof four);
  return _mm256_set1_epi32(four);
}

}  // namespace
}  // namespace onnxfuse

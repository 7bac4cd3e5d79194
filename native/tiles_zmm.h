// Tiles of up to 6 rows x 64 columns on AVX-512: 24 accumulators, kept in registers by asm statements (GCC folds the loads of
// intrinsics into their operands and spills accumulators).
#pragma once

#include "gelu_zmm.h"

namespace onnxfuse {
namespace {

constexpr int64_t kColumns = 64;  // of a panel

inline void fma_into(__m512& sum, __m512 a, __m512 w) { asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w)); }
inline void dot_bytes_into(__m512i& sum, __m512i a, __m512i w) { asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w)); }
#ifndef ONNXFUSE_NO_AVX512_BF16
inline void dot_pairs_into(__m512& sum, __m512i a, __m512i w) { asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(w)); }
#endif

// Four bytes at p in every lane.
inline __m512i broadcast(const char* p) {
  int32_t four;
  memcpy(&four, p, sizeof four);
  return _mm512_set1_epi32(four);
}

// Asks for the `lines` cache lines at p, to be in L2.
inline void prefetch(const char* p, int64_t lines) {
  for (const char* end = p + lines * kLine; p < end; p += kLine) __builtin_prefetch(p, 0, 2);
}

inline __m512i load_line(const char* p) { return _mm512_loadu_si512(p); }

// Clears, and later writes, the accumulators of a tile.
template <int R>
inline void clear(__m512 (&sum)[R][4]) {
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) sum[r][c] = _mm512_setzero_ps();
}

template <int R>
inline void store_sums(void* sums, const __m512 (&sum)[R][4]) {
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) _mm512_store_ps(static_cast<float*>(sums) + r * kColumns + c * 16, sum[r][c]);
}

template <int R>
void dot_floats(const char* a, int64_t stride, const char* w, int64_t K, void* sums, Ahead ahead) {
  __m512 sum[R][4];
  clear<R>(sum);
  for (int64_t k = 0; k < K; ++k, a += 4, w += 256) {
    prefetch(w + ahead.distance, ahead.lines);
    ahead.distance += ahead.step;
    __m512 column[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) column[c] = _mm512_loadu_ps(w + c * 64);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const __m512 x = _mm512_castsi512_ps(broadcast(a + r * stride));
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) fma_into(sum[r][c], x, column[c]);
    }
  }
  store_sums<R>(sums, sum);
}

// Of rows of u8 and a panel [K/4][64][4] of s8.
template <int R>
void dot_bytes(const char* a, int64_t stride, const char* w, int64_t K, void* sums, Ahead ahead) {
  __m512i sum[R][4];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) sum[r][c] = _mm512_setzero_si512();
  for (int64_t k = 0; k < K; k += 4, a += 4, w += 256) {
    prefetch(w + ahead.distance, ahead.lines);
    ahead.distance += ahead.step;
    __m512i column[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) column[c] = load_line(w + c * 64);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const __m512i x = broadcast(a + r * stride);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) dot_bytes_into(sum[r][c], x, column[c]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) _mm512_store_si512(static_cast<int32_t*>(sums) + r * kColumns + c * 16, sum[r][c]);
}

// Of rows and a panel [K/2][64][2] of bfloat16, where the CPU has AVX512-BF16.
template <int R>
void dot_pairs(const char* a, int64_t stride, const char* w, int64_t K, void* sums, Ahead ahead) {
#ifndef ONNXFUSE_NO_AVX512_BF16
  __m512 sum[R][4];
  clear<R>(sum);
  for (int64_t k = 0; k < K; k += 2, a += 4, w += 256) {
    prefetch(w + ahead.distance, ahead.lines);
    ahead.distance += ahead.step;
    __m512i column[4];
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) column[c] = load_line(w + c * 64);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const __m512i x = broadcast(a + r * stride);
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) dot_pairs_into(sum[r][c], x, column[c]);
    }
  }
  store_sums<R>(sums, sum);
#else
  (void)a, (void)stride, (void)w, (void)K, (void)sums, (void)ahead;
#endif
}

// The float of the lower or the upper half of each lane.
template <int kHalf>
inline __m512 half_of(__m512i pairs) {
  const __m512i bits = kHalf ? _mm512_and_epi32(pairs, _mm512_set1_epi32(-65536)) : _mm512_maskz_slli_epi32(0xffff, pairs, 16);
  return _mm512_castsi512_ps(bits);
}

template <int kHalf, int R>
inline void add_half(__m512 (&sum)[R][4], const char* a, int64_t stride, const char* w) {
  __m512 column[4];
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) column[c] = half_of<kHalf>(load_line(w + c * 64));
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
    const __m512 x = half_of<kHalf>(broadcast(a + r * stride));
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) fma_into(sum[r][c], x, column[c]);
  }
}

// The same in float32, where it has not.
template <int R>
void dot_pairs_as_floats(const char* a, int64_t stride, const char* w, int64_t K, void* sums, Ahead ahead) {
  __m512 sum[R][4];
  clear<R>(sum);
  for (int64_t k = 0; k < K; k += 2, a += 4, w += 256) {
    prefetch(w + ahead.distance, ahead.lines);
    ahead.distance += ahead.step;
    add_half<0, R>(sum, a, stride, w);
    add_half<1, R>(sum, a, stride, w);
  }
  store_sums<R>(sums, sum);
}

// Columns [c, c + 16) of row k of an int8 panel, as float.
inline __m512 weight_row_of(const void* panel, int64_t k, int64_t c) {
  const __m512i all = load_line(static_cast<const char*>(panel) + k / 4 * 256 + c * 4);
  const __m128i up = _mm_cvtsi32_si128(static_cast<int32_t>(24 - k % 4 * 8));
  const __m512i byte = _mm512_maskz_srai_epi32(0xffff, _mm512_maskz_sll_epi32(0xffff, all, up), 24);
  return _mm512_maskz_cvtepi32_ps(0xffff, byte);
}

}  // namespace
}  // namespace onnxfuse

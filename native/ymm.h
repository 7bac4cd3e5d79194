// Eight floats of AVX2, as rows.h and epilogue.h use them; the bytes of rows are int16 with ONNXFUSE_WIDE_BYTES.
#pragma once

#include "intrinsics.h"

#include "common.h"

namespace onnxfuse {
namespace {

alignas(64) const int32_t kFirstLanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
alignas(32) const int32_t kOrder[8] = {0, 1, 2, 3, 4, 5, 6, 7};

struct Vector {
  using F = __m256;
  using I = __m256i;
  struct Mask {
    __m256i lanes;
  };
  static constexpr int64_t kWidth = 8;

  static I at(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

  // The lanes before n.
  static Mask first(int64_t n) { return {at(kFirstLanes + (n >= 8 ? 0 : 8 - n))}; }
  static Mask except(int64_t lane) {
    return {_mm256_xor_si256(_mm256_cmpeq_epi32(at(kOrder), set(static_cast<int32_t>(lane))), set(-1))};
  }

  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load(const float* p, Mask mask) { return _mm256_maskload_ps(p, mask.lanes); }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static void store(float* p, F x, Mask mask) { _mm256_maskstore_ps(p, mask.lanes, x); }
  static I load(const int32_t* p) { return at(p); }
  static I load(const int32_t* p, Mask mask) { return _mm256_maskload_epi32(p, mask.lanes); }
  static F set(float x) { return _mm256_set1_ps(x); }
  static I set(int32_t x) { return _mm256_set1_epi32(x); }
  static F keep(F x, Mask mask) { return _mm256_and_ps(x, _mm256_castsi256_ps(mask.lanes)); }

  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F subtract(F a, F b) { return _mm256_sub_ps(a, b); }
  static F multiply(F a, F b) { return _mm256_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }  // b where one is NaN
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static I add(I a, I b) { return _mm256_add_epi32(a, b); }
  static I subtract(I a, I b) { return _mm256_sub_epi32(a, b); }
  static I multiply(I a, I b) { return _mm256_mullo_epi32(a, b); }
  static I max(I a, I b) { return _mm256_max_epi32(a, b); }

  static F magnitude(F x) { return _mm256_and_ps(x, _mm256_castsi256_ps(set(0x7fffffff))); }
  static F to_float(I x) { return _mm256_cvtepi32_ps(x); }
  // Of 8 entries those that the low bits of a lane name.
  static F pick(const float* table, F place) {
    return _mm256_permutevar8x32_ps(_mm256_load_ps(table), _mm256_castps_si256(place));
  }
  static I round(F x) { return _mm256_cvtps_epi32(x); }
  static Mask unequal(F a, F b) { return {_mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_NEQ_UQ))}; }
  static int64_t first_off(Mask mask) {
    return __builtin_ctz(~static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(mask.lanes))));
  }

  template <class Op>
  static float fold(F x, Op op) {
    x = op(x, _mm256_permute2f128_ps(x, x, 1));
    x = op(x, _mm256_permute_ps(x, 0x4e));
    x = op(x, _mm256_permute_ps(x, 0xb1));
    return _mm256_cvtss_f32(x);
  }
  static float sum_of(F x) {
    return fold(x, [](F a, F b) { return add(a, b); });
  }
  static float max_of(F x) {
    return fold(x, [](F a, F b) { return max(a, b); });
  }
  static float min_of(F x) {
    return fold(x, [](F a, F b) { return min(a, b); });
  }

  // Writes eight integers clipped to 0..255.
#ifdef ONNXFUSE_WIDE_BYTES
  using Byte = int16_t;
  static void store_bytes(Byte* p, I x) {
    x = _mm256_min_epi32(max(x, set(0)), set(255));
    x = _mm256_permute4x64_epi64(_mm256_packus_epi32(x, x), 0x08);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(x));
  }
  // Writes 32 integers plus `zero`, clipped.
  static void store_four(Byte* p, const I (&x)[4], int32_t zero) {
    const I shift = _mm256_set1_epi16(static_cast<int16_t>(zero)), top = _mm256_set1_epi16(255);
    for (int i = 0; i < 4; i += 2) {
      const I sums = _mm256_adds_epi16(_mm256_packs_epi32(x[i], x[i + 1]), shift);
      const I clipped = _mm256_min_epi16(_mm256_max_epi16(sums, _mm256_setzero_si256()), top);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p) + i / 2, _mm256_permute4x64_epi64(clipped, 0xd8));
    }
  }
#else
  using Byte = uint8_t;
  static void store_bytes(Byte* p, I x) {
    x = _mm256_permute4x64_epi64(_mm256_packs_epi32(x, x), 0x08);
    const __m128i half = _mm256_castsi256_si128(x);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(half, half));
  }
  // Writes 32 integers of some hundreds at most plus `zero`, clipped: packing takes from each 128 bits in turn.
  static void store_four(Byte* p, const I (&x)[4], int32_t zero) {
    const I shift = _mm256_set1_epi16(static_cast<int16_t>(zero));
    const I low = _mm256_adds_epi16(_mm256_packs_epi32(x[0], x[1]), shift);
    const I high = _mm256_adds_epi16(_mm256_packs_epi32(x[2], x[3]), shift);
    const I order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const I bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bytes);
  }
#endif

  // Writes eight floats rounded to bfloat16, halves to even, still as floats; NaN stays NaN.
  using Half = float;
  static void store_bfloat16(Half* p, F x) {
    const I bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), set(1));
    const I even = _mm256_and_si256(add(add(bits, set(0x7fff)), odd), set(-65536));
    const F nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    store(p, _mm256_blendv_ps(_mm256_castsi256_ps(even), x, nan));
  }
};

}  // namespace
}  // namespace onnxfuse

// Sixteen floats of AVX-512, as rows.h and epilogue.h use them.
#pragma once

#include "intrinsics.h"

#include "common.h"

namespace onnxfuse {
namespace {

struct Vector {
  using F = __m512;
  using I = __m512i;
  using Mask = __mmask16;
  static constexpr int64_t kWidth = 16;

  // The lanes before n.
  static Mask first(int64_t n) { return static_cast<Mask>(n >= 16 ? 0xffff : (1u << n) - 1); }
  static Mask except(int64_t lane) { return static_cast<Mask>(~(1u << lane)); }

  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load(const float* p, Mask mask) { return _mm512_maskz_loadu_ps(mask, p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static void store(float* p, F x, Mask mask) { _mm512_mask_storeu_ps(p, mask, x); }
  static I load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static I load(const int32_t* p, Mask mask) { return _mm512_maskz_loadu_epi32(mask, p); }
  static F set(float x) { return _mm512_set1_ps(x); }
  static I set(int32_t x) { return _mm512_set1_epi32(x); }
  static F keep(F x, Mask mask) { return _mm512_maskz_mov_ps(mask, x); }

  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F subtract(F a, F b) { return _mm512_sub_ps(a, b); }
  static F multiply(F a, F b) { return _mm512_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F max(F a, F b) { return _mm512_maskz_max_ps(0xffff, a, b); }  // b where one is NaN
  static F min(F a, F b) { return _mm512_maskz_min_ps(0xffff, a, b); }
  static I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static I subtract(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I multiply(I a, I b) { return _mm512_mullo_epi32(a, b); }
  static I max(I a, I b) { return _mm512_maskz_max_epi32(0xffff, a, b); }

  static F magnitude(F x) { return _mm512_castsi512_ps(_mm512_and_epi32(_mm512_castps_si512(x), set(0x7fffffff))); }
  static F to_float(I x) { return _mm512_maskz_cvtepi32_ps(0xffff, x); }
  // Of 16 entries those that the low bits of a lane name.
  static F pick(const float* table, F place) { return _mm512_permutexvar_ps(_mm512_castps_si512(place), _mm512_load_ps(table)); }
  static I round(F x) { return _mm512_maskz_cvtps_epi32(0xffff, x); }
  static Mask unequal(F a, F b) { return _mm512_cmp_ps_mask(a, b, _CMP_NEQ_UQ); }
  static int64_t first_off(Mask mask) { return __builtin_ctz(~static_cast<unsigned>(mask)); }

  // Folds 512 bits to 128 by `op`, then what is left of it to one.
  template <class Op>
  static float fold(F x, Op op) {
    x = op(x, _mm512_maskz_shuffle_f32x4(0xffff, x, x, 0x4e));
    x = op(x, _mm512_maskz_shuffle_f32x4(0xffff, x, x, 0xb1));
    x = op(x, _mm512_maskz_permute_ps(0xffff, x, 0x4e));
    x = op(x, _mm512_maskz_permute_ps(0xffff, x, 0xb1));
    return _mm512_cvtss_f32(x);
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

  // Writes sixteen integers clipped to 0..255.
  using Byte = uint8_t;
  static void store_bytes(Byte* p, I x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtusepi32_epi8(0xffff, max(x, set(0))));
  }
  // Writes 64 integers of some hundreds at most plus `zero`, clipped to 0..255: packing takes from each 128 bits in turn.
  static void store_four(Byte* p, const I (&x)[4], int32_t zero) {
    const I shift = _mm512_set1_epi16(static_cast<int16_t>(zero));
    const I low = _mm512_adds_epi16(_mm512_packs_epi32(x[0], x[1]), shift);
    const I high = _mm512_adds_epi16(_mm512_packs_epi32(x[2], x[3]), shift);
    const I order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    _mm512_storeu_si512(p, _mm512_maskz_permutexvar_epi32(0xffff, order, _mm512_packus_epi16(low, high)));
  }

  // Writes sixteen floats as bfloat16, halves to even; NaN stays NaN.
  using Half = uint16_t;
  static void store_bfloat16(Half* p, F x) {
    const I bits = _mm512_castps_si512(x), top = _mm512_maskz_srli_epi32(0xffff, bits, 16);
    const I even = add(add(bits, set(0x7fff)), _mm512_and_epi32(top, set(1)));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const I value = _mm512_mask_or_epi32(_mm512_maskz_srli_epi32(0xffff, even, 16), nan, top, set(0x40));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtepi32_epi16(0xffff, value));
  }
};

}  // namespace
}  // namespace onnxfuse

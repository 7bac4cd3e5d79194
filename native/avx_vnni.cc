// Kernels for AVX2 with AVX-VNNI: its vpdpbusd is VEX-encoded, so the assembler needs to know it, the compiler not.
#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__) && !defined(ONNXFUSE_NO_AVX_VNNI)

#include "tiles_ymm.h"

namespace onnxfuse {
namespace {

inline void dot_into(__m256i& sum, __m256i a, __m256i w) { asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(a), "x"(w)); }

// Of rows of u8 and a panel [K/4][16][4].
template <int R>
void dot_bytes(const char* a, int64_t stride, const void* panel, int64_t K, void* sums) {
  const __m256i* w = static_cast<const __m256i*>(panel);
  __m256i sum[R][2];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
  for (int64_t k = 0; k < K; k += 4, a += 4, w += 2) {
    const __m256i w0 = _mm256_loadu_si256(w), w1 = _mm256_loadu_si256(w + 1);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const __m256i x = broadcast(a + r * stride);
      dot_into(sum[r][0], x, w0);
      dot_into(sum[r][1], x, w1);
    }
  }
  store_sums<R>(sums, sum);
}

struct Tiles {
  static constexpr int64_t kRows = 6, kColumns = 16;
  static int64_t group(Type type) { return type == Type::kFloat32 ? 1 : type == Type::kBFloat16 ? 2 : 4; }
  static int64_t pad(Type type) { return group(type); }

  template <Type kType, int R>
  static void run(const char* a, int64_t stride, const void* panel, int64_t K, void* sums, Ahead) {
    if (kType == Type::kFloat32) return dot_floats<R>(a, stride, panel, K, sums);
    if (kType == Type::kBFloat16) return dot_bfloat16<R>(a, stride, panel, K, sums);
    return dot_bytes<R>(a, stride, panel, K, sums);
  }

  static __m256 weight_row(const void* panel, int64_t k, int64_t c) {
    const char* fours = static_cast<const char*>(panel) + k / 4 * 64 + c * 4;
    const __m256i all = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(fours));
    const __m128i up = _mm_cvtsi32_si128(static_cast<int32_t>(24 - k % 4 * 8));
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_sll_epi32(all, up), 24));
  }
};

}  // namespace
}  // namespace onnxfuse

#include "attention.h"
#include "drive.h"

namespace onnxfuse {

const Kernels* avx_vnni_kernels() {
  static const Kernels kernels = {"avx_vnni", packed_bytes,    pack, rows_bytes, rows_in, prepare,
                                  product,    Tiles::kColumns, norm, attention::bytes, attention::run};
  return &kernels;
}

}  // namespace onnxfuse

#else

const onnxfuse::Kernels* onnxfuse::avx_vnni_kernels() { return nullptr; }

#endif

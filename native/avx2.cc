// Kernels for AVX2 with FMA.
#include "kernels.h"

#if defined(__AVX2__) && defined(__FMA__)

#define ONNXFUSE_WIDE_BYTES
#include "tiles_ymm.h"

namespace onnxfuse {
namespace {

// vpmaddubsw would saturate; vpmaddwd of int16 is exact, so rows are int16 and weights are widened as they are loaded.
inline void dot_into(__m256i& sum, __m256i a, __m256i w) {
  __m256i pairs;
  asm("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(pairs) : "x"(a), "x"(w));
}

// Of rows of int16 and a panel [K/2][16][2].
template <int R>
void dot_bytes(const char* a, int64_t stride, const void* panel, int64_t K, void* sums) {
  const __m128i* w = static_cast<const __m128i*>(panel);
  __m256i sum[R][2];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
  for (int64_t k = 0; k < K; k += 2, a += 4, w += 2) {
    const __m256i w0 = _mm256_cvtepi8_epi16(_mm_loadu_si128(w)), w1 = _mm256_cvtepi8_epi16(_mm_loadu_si128(w + 1));
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
  static int64_t group(Type type) { return type == Type::kFloat32 ? 1 : 2; }
  static int64_t pad(Type type) { return group(type); }

  template <Type kType, int R>
  static void run(const char* a, int64_t stride, const void* panel, int64_t K, void* sums, Ahead) {
    if (kType == Type::kFloat32) return dot_floats<R>(a, stride, panel, K, sums);
    if (kType == Type::kBFloat16) return dot_bfloat16<R>(a, stride, panel, K, sums);
    return dot_bytes<R>(a, stride, panel, K, sums);
  }

  static __m256 weight_row(const void* panel, int64_t k, int64_t c) {
    const char* pairs = static_cast<const char*>(panel) + k / 2 * 32 + c * 2;
    const __m256i both = _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(pairs)));
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(k % 2 ? _mm256_slli_epi32(both, 16) : _mm256_slli_epi32(both, 24), 24));
  }
};

}  // namespace
}  // namespace onnxfuse

#include "attention.h"
#include "drive.h"

namespace onnxfuse {

const Kernels* avx2_kernels() {
  static const Kernels kernels = {"avx2",  packed_bytes,    pack, rows_bytes, rows_in, prepare,
                                  product, Tiles::kColumns, norm, attention::bytes, attention::run};
  return &kernels;
}

}  // namespace onnxfuse

#else

const onnxfuse::Kernels* onnxfuse::avx2_kernels() { return nullptr; }

#endif

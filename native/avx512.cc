// Kernels for AVX512-VNNI, with AVX512-BF16 where the CPU has it.
#include "kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && defined(__AVX512VNNI__)

#include "attention_bf16.h"
#include "dispatch.h"
#include "tiles_zmm.h"

namespace onnxfuse {
namespace {

bool has_pairs() {
#ifdef ONNXFUSE_NO_AVX512_BF16
  return false;
#else
  return cpu().avx512_bf16;
#endif
}

struct Tiles {
  static constexpr int64_t kRows = 6, kColumns = onnxfuse::kColumns;
  static int64_t group(Type type) { return type == Type::kFloat32 ? 1 : type == Type::kBFloat16 ? 2 : 4; }
  static int64_t pad(Type type) { return group(type); }

  template <Type kType, int R>
  static void run(const char* a, int64_t stride, const void* panel, int64_t K, void* sums, Ahead ahead) {
    const char* w = static_cast<const char*>(panel);
    if (kType == Type::kFloat32) return dot_floats<R>(a, stride, w, K, sums, ahead);
    if (kType == Type::kInt8) return dot_bytes<R>(a, stride, w, K, sums, ahead);
    if (has_pairs()) return dot_pairs<R>(a, stride, w, K, sums, ahead);
    return dot_pairs_as_floats<R>(a, stride, w, K, sums, ahead);
  }

  static __m512 weight_row(const void* panel, int64_t k, int64_t c) { return weight_row_of(panel, k, c); }
};

}  // namespace
}  // namespace onnxfuse

#include "attention.h"
#include "drive.h"

namespace onnxfuse {

const Kernels* avx512_kernels() {
  static const Kernels kernels = [] {
    Kernels all = {"avx512", packed_bytes,    pack, rows_bytes,       rows_in,       prepare,
                   product,  Tiles::kColumns, norm, attention::bytes, attention::run};
#ifndef ONNXFUSE_NO_AVX512_BF16
    if (has_pairs()) all.attention_bytes = attention_bf16_bytes, all.attention = attention_bf16;
#endif
    return all;
  }();
  return &kernels;
}

}  // namespace onnxfuse

#else

const onnxfuse::Kernels* onnxfuse::avx512_kernels() { return nullptr; }

#endif

// Kernels for AMX-INT8 and AMX-BF16; norms, float32 and the last few rows are AVX-512's, whose panels these are too: 16 rows of
// [K/4][64][4] or [K/2][64][2], 256 bytes apart, are a tile, so K is padded to what a tile of rows holds.
#include "kernels.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__) && \
    defined(__AVX512VNNI__) && !defined(ONNXFUSE_NO_AMX) && !defined(ONNXFUSE_NO_AVX512_BF16)

#include "amx_tiles.h"
#include "attention_bf16.h"
#include "tiles_zmm.h"

namespace onnxfuse {
namespace {

constexpr int64_t kTileBytes = 64;  // of a row of a tile

struct Tiles {
  static constexpr int64_t kRows = 6, kColumns = onnxfuse::kColumns;
  static int64_t group(Type type) { return type == Type::kFloat32 ? 1 : type == Type::kBFloat16 ? 2 : 4; }
  static int64_t pad(Type type) { return type == Type::kFloat32 ? 1 : group(type) * 16; }

  template <Type kType, int R>
  static void run(const char* a, int64_t stride, const void* panel, int64_t K, void* sums, Ahead ahead) {
    const char* w = static_cast<const char*>(panel);
    if (kType == Type::kFloat32) return dot_floats<R>(a, stride, w, K, sums, ahead);
    if (kType == Type::kInt8) return dot_bytes<R>(a, stride, w, K, sums, ahead);
    return dot_pairs<R>(a, stride, w, K, sums, ahead);
  }

  static __m512 weight_row(const void* panel, int64_t k, int64_t c) { return weight_row_of(panel, k, c); }
};

}  // namespace
}  // namespace onnxfuse

#include "drive.h"

namespace onnxfuse {
namespace {

constexpr int64_t kBlock = 32;  // rows: two tiles of 16

// Tiles 0..3 are sums (upper left, upper right, lower left, lower right), 4 and 5 rows, 6 and 7 columns.
tiles::Config config_of(int64_t count) {
  tiles::Config config{};
  config.palette = 1;
  const uint8_t upper = static_cast<uint8_t>(count < 16 ? count : 16), lower = static_cast<uint8_t>(count > 16 ? count - 16 : 16);
  const uint8_t rows[8] = {upper, upper, lower, lower, upper, lower, 16, 16};
  for (int i = 0; i < 8; ++i) config.rows[i] = rows[i], config.row_bytes[i] = kTileBytes;
  return config;
}

template <Type kType, int kSum, int kA, int kB>
void dot() {
  if (kType == Type::kInt8)
    tiles::dot_bytes<kSum, kA, kB>();
  else
    tiles::dot_pairs<kSum, kA, kB>();
}

// Sums [count][64] of up to 16 rows (kLower: up to 32); steps: of kTileBytes of a row.
template <Type kType, bool kLower>
void block_of(const char* a, int64_t stride, const char* panel, int64_t steps, char* sums) {
  constexpr int64_t line = kColumns * 4;
  for (int64_t c = 0; c < line; c += 2 * kTileBytes) {
    tiles::zero<0>();
    tiles::zero<1>();
    if (kLower) tiles::zero<2>();
    if (kLower) tiles::zero<3>();
    for (int64_t s = 0; s < steps; ++s) {
      const char* w = panel + s * 16 * line + c;
      tiles::load<4>(a + s * kTileBytes, stride);
      tiles::load<6>(w, line);
      tiles::load<7>(w + kTileBytes, line);
      dot<kType, 0, 4, 6>();
      dot<kType, 1, 4, 7>();
      if (!kLower) continue;
      tiles::load<5>(a + 16 * stride + s * kTileBytes, stride);
      dot<kType, 2, 5, 6>();
      dot<kType, 3, 5, 7>();
    }
    tiles::store<0>(sums + c, line);
    tiles::store<1>(sums + c + kTileBytes, line);
    if (kLower) tiles::store<2>(sums + 16 * line + c, line);
    if (kLower) tiles::store<3>(sums + 16 * line + c + kTileBytes, line);
  }
}

// As drive.h's product, of kInt8 and kBFloat16; a rest of up to Tiles::kRows rows is left to it.
template <Type kType>
void product_in_blocks(const Rows& rows, const Weight& weight, const Epilogue& epilogue, float* y, int64_t y_stride,
                       int64_t begin, int64_t end, int64_t from, int64_t to) {
  alignas(64) int32_t sums[kBlock * kColumns];
  const int64_t row_step = rows.stride * row_element(kType), steps = panel_bytes(kType, rows.K) / (kColumns * kTileBytes);
  int64_t configured = 0;
  for (; from < to; from += kColumns) {
    const char* panel = static_cast<const char*>(weight.packed) + from / kColumns * panel_bytes(kType, rows.K);
    int64_t m = begin;
    while (end - m > Tiles::kRows) {
      const int64_t count = end - m < kBlock ? end - m : kBlock;
      if (count != configured) tiles::configure(config_of(count));
      configured = count;
      const char* a = static_cast<const char*>(rows.values) + m * row_step;
      if (count > 16)
        block_of<kType, true>(a, row_step, panel, steps, reinterpret_cast<char*>(sums));
      else
        block_of<kType, false>(a, row_step, panel, steps, reinterpret_cast<char*>(sums));
      finish<kType == Type::kInt8>({sums, m, count, from, panel}, rows, weight, epilogue, y, y_stride, to);
      m += count;
    }
    if (m < end) product_panel<kType>(rows, weight, epilogue, y, y_stride, m, end, from, to);
  }
  if (configured) tiles::release();
}

void product_with_tiles(const Rows& rows, const Weight& weight, const Epilogue& epilogue, float* y, int64_t y_stride,
                        int64_t begin, int64_t end, int64_t from, int64_t to) {
  if (rows.type == Type::kInt8)
    product_in_blocks<Type::kInt8>(rows, weight, epilogue, y, y_stride, begin, end, from, to);
  else if (rows.type == Type::kBFloat16)
    product_in_blocks<Type::kBFloat16>(rows, weight, epilogue, y, y_stride, begin, end, from, to);
  else
    product(rows, weight, epilogue, y, y_stride, begin, end, from, to);
}

}  // namespace

const Kernels* amx_kernels() {
  static const Kernels kernels = {"amx",
                                  packed_bytes,
                                  pack,
                                  rows_bytes,
                                  rows_in,
                                  prepare,
                                  product_with_tiles,
                                  kColumns,
                                  norm,
                                  attention_bf16_bytes,
                                  attention_bf16};
  return &kernels;
}

}  // namespace onnxfuse

#else

const onnxfuse::Kernels* onnxfuse::amx_kernels() { return nullptr; }

#endif

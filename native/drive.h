// Packing, and the loop of a product over panels and tiles of rows; the including file has chosen Vector and Tiles:
//   Tiles::kColumns, kRows: of a tile. Tiles::group(type): rows of a weight that lie side by side in a panel,
//   Tiles::pad(type): K is padded to it. Panels are [K padded / group][columns][group], zeros beyond K and N.
//   Tiles::run<kType, R>(a, stride, panel, K, sums, ahead): sums [R][columns] of R rows; a, stride: Rows::values, a row's bytes.
//   Tiles::weight_row(panel, k, c): columns [c, c + width) of row k of an int8 panel, as float.
#pragma once

#include "epilogue.h"
#include "rows.h"

namespace onnxfuse {
namespace {

int64_t weight_bytes(Type type) { return type == Type::kFloat32 ? 4 : type == Type::kBFloat16 ? 2 : 1; }

// Bytes of a panel of `K` rows.
inline int64_t panel_bytes(Type type, int64_t K) { return round_up(K, Tiles::pad(type)) * Tiles::kColumns * weight_bytes(type); }

// Kernels::packed_bytes.
size_t packed_bytes(Type type, int64_t K, int64_t N) {
  return static_cast<size_t>(round_up(N, Tiles::kColumns) / Tiles::kColumns * panel_bytes(type, K));
}

template <class T>
void pack_as(const T* weight, int64_t K, int64_t N, int64_t group, int64_t padded, T* packed) {
  for (int64_t from = 0; from < N; from += Tiles::kColumns)
    for (int64_t first = 0; first < padded; first += group)
      for (int64_t n = from; n < from + Tiles::kColumns; ++n)
        for (int64_t k = first; k < first + group; ++k) *packed++ = k < K && n < N ? weight[k * N + n] : T(0);
}

// Kernels::pack.
void pack(Type type, const void* weight, int64_t K, int64_t N, void* packed) {
  const int64_t group = Tiles::group(type), padded = round_up(K, Tiles::pad(type));
  if (type == Type::kFloat32) pack_as(static_cast<const float*>(weight), K, N, group, padded, static_cast<float*>(packed));
  if (type == Type::kBFloat16)
    pack_as(static_cast<const uint16_t*>(weight), K, N, group, padded, static_cast<uint16_t*>(packed));
  if (type == Type::kInt8) pack_as(static_cast<const int8_t*>(weight), K, N, group, padded, static_cast<int8_t*>(packed));
}

template <Type kType>
void run_tile(int64_t count, const char* a, int64_t stride, const void* panel, int64_t K, void* sums, Ahead ahead) {
  switch (count) {
    case 1:
      return Tiles::run<kType, 1>(a, stride, panel, K, sums, ahead);
    case 2:
      return Tiles::run<kType, 2>(a, stride, panel, K, sums, ahead);
    case 3:
      return Tiles::run<kType, 3>(a, stride, panel, K, sums, ahead);
    case 4:
      return Tiles::run<kType, 4>(a, stride, panel, K, sums, ahead);
    case 5:
      return Tiles::run<kType, 5>(a, stride, panel, K, sums, ahead);
    default:
      return Tiles::run<kType, 6>(a, stride, panel, K, sums, ahead);
  }
}

// What tile `done` of `tiles` of M rows asks for. Of few rows a product takes as long as memory takes to bring its weight, so
// tiles share in bringing the next panel to L2, each a part of its own from begin to end: the machine's own prefetching stops at
// page ends and knows nothing of tiles. Of one or two rows it is better left alone, where the weight lies in L3.
inline Ahead ahead_of(int64_t done, int64_t tiles, int64_t M, int64_t panel) {
  constexpr int64_t kSoon = 8192;
  if (M <= 2) return {0, 0, 0};
  if (done == 0 && M <= 10) return {kSoon, 4, 0};
  if (tiles == 2) return {panel + (M <= 10 ? 0 : done * panel / 2), 2, -2 * kLine};
  if (tiles == 3) return {panel + (done ? done + 1 : 0) * panel / 4, done ? 1 : 2, done ? -3 * kLine : -2 * kLine};
  return {panel + done * panel / 4, done < 4 ? 1 : 0, -3 * kLine};
}

// The panel at column `from` by rows [begin, end), in tiles of about the same size.
template <Type kType>
void product_panel(const Rows& rows, const Weight& weight, const Epilogue& epilogue, float* y, int64_t y_stride, int64_t begin,
                   int64_t end, int64_t from, int64_t to) {
  alignas(64) int32_t sums[Tiles::kRows * Tiles::kColumns];
  const char* panel = static_cast<const char*>(weight.packed) + from / Tiles::kColumns * panel_bytes(kType, rows.K);
  const int64_t row_step = rows.stride * row_element(kType);
  const int64_t tiles = (end - begin + Tiles::kRows - 1) / Tiles::kRows;
  const bool last = to <= from + Tiles::kColumns;
  int64_t m = begin;
  for (int64_t done = 0; done < tiles; ++done) {
    const int64_t count = (end - m + tiles - done - 1) / (tiles - done);
    const Ahead ahead = last ? Ahead{0, 0, 0} : ahead_of(done, tiles, end - begin, panel_bytes(kType, rows.K));
    run_tile<kType>(count, static_cast<const char*>(rows.values) + m * row_step, row_step, panel, rows.K, sums, ahead);
    finish<kType == Type::kInt8>({sums, m, count, from, panel}, rows, weight, epilogue, y, y_stride, to);
    m += count;
  }
}

// Kernels::product.
void product(const Rows& rows, const Weight& weight, const Epilogue& epilogue, float* y, int64_t y_stride, int64_t begin,
             int64_t end, int64_t from, int64_t to) {
  for (; from < to; from += Tiles::kColumns) switch (rows.type) {
      case Type::kFloat32:
        product_panel<Type::kFloat32>(rows, weight, epilogue, y, y_stride, begin, end, from, to);
        break;
      case Type::kBFloat16:
        product_panel<Type::kBFloat16>(rows, weight, epilogue, y, y_stride, begin, end, from, to);
        break;
      case Type::kInt8:
        product_panel<Type::kInt8>(rows, weight, epilogue, y, y_stride, begin, end, from, to);
        break;
    }
}

}  // namespace
}  // namespace onnxfuse

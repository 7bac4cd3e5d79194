#include "product.h"

#include <algorithm>
#include <new>

namespace onnxfuse {
namespace {

constexpr int64_t kStep = 12;             // blocks of rows are multiples of it: tiles of 4, 6 and 12 rows fit
constexpr int64_t kWhole = 48;            // so few rows are never cut: each block reads all weights
constexpr int64_t kFewest = 24, kMost = 96;  // rows of a block otherwise
constexpr int64_t kCycles = 12000;        // that a task must be worth
constexpr int64_t kPanelBytes = 1 << 18;  // of weights in a task, to stay in a core's cache for the next block of rows

int64_t divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How a product is cut: blocks of `rows` rows, ranges of `columns` columns.
struct Cut {
  int64_t rows, blocks, columns, ranges;
};

int64_t rows_of_block(int64_t count, int64_t threads) {
  if (count <= kWhole || threads == 1) return std::min(count, kMost);
  const int64_t wanted = std::clamp(divided(count, 2 * threads), kFewest, kMost);
  return divided(divided(count, divided(count, wanted)), kStep) * kStep;
}

Cut cut_of(const Kernels& kernels, const Weight& weight, int64_t count, int64_t threads) {
  Cut cut;
  cut.rows = rows_of_block(count, threads);
  cut.blocks = divided(count, cut.rows);
  const int64_t bytes = weight.type == Type::kFloat32 ? 4 : weight.type == Type::kBFloat16 ? 2 : 1;
  const int64_t panels = divided(weight.N, kernels.columns), panel = weight.K * kernels.columns * bytes;
  const int64_t cycles = std::max<int64_t>(1, cut.rows * panel / 128 + panel / 16);
  const int64_t fewest = std::min(panels, divided(kCycles, cycles)), most = std::max<int64_t>(1, kPanelBytes / panel);
  const int64_t wanted = panels / divided(6 * threads, cut.blocks);
  const int64_t taken = std::max(fewest, std::min(std::max<int64_t>(1, wanted), most));
  cut.columns = taken * kernels.columns;
  cut.ranges = divided(panels, taken);
  return cut;
}

}  // namespace

int64_t counters_of(int64_t count) { return count / kStep + 1; }

void product(Pool& pool, const Kernels& kernels, const Rows& rows, const Weight& weight, const Epilogue& epilogue, float* y,
             int64_t y_stride, int64_t begin, int64_t end, std::atomic<int32_t>* left, const Tail& tail) {
  if (begin >= end) return;
  const Cut cut = cut_of(kernels, weight, end - begin, static_cast<int64_t>(pool.threads()));
  for (int64_t i = 0; i < cut.blocks; ++i) new (left + i) std::atomic<int32_t>(static_cast<int32_t>(cut.ranges));
  pool.each(static_cast<size_t>(cut.blocks * cut.ranges), [&](size_t task) {
    const int64_t block = static_cast<int64_t>(task) % cut.blocks, range = static_cast<int64_t>(task) / cut.blocks;
    const int64_t first = begin + block * cut.rows, last = std::min(end, first + cut.rows);
    const int64_t from = range * cut.columns, to = std::min(weight.N, from + cut.columns);
    kernels.product(rows, weight, epilogue, y, y_stride, first, last, from, to);
    if (tail && left[block].fetch_sub(1, std::memory_order_acq_rel) == 1) tail(first, last);
  });
}

void each_row(Pool& pool, int64_t count, int64_t width, const Tail& tail) {
  if (count <= 0) return;
  const int64_t fewest = divided(kCycles, std::max<int64_t>(1, width));
  const int64_t rows = std::max(fewest, divided(count, 4 * static_cast<int64_t>(pool.threads())));
  pool.each(static_cast<size_t>(divided(count, rows)), [&](size_t task) {
    const int64_t first = static_cast<int64_t>(task) * rows;
    tail(first, std::min(count, first + rows));
  });
}

}  // namespace onnxfuse

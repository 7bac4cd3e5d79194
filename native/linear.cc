#include "linear.h"

namespace onnxfuse {

void Norm::run(const Kernels& kernels, const float* x, float* y, int64_t N, int64_t begin, int64_t end) const {
  kernels.norm(x + begin * N, N, y + begin * N, N, static_cast<const float*>(gamma.data()),
               static_cast<const float*>(beta.data()), epsilon, end - begin, N);
}

Linear::Linear(const Kernels& kernels, PackedWeight weight, Norm norm, Activation activation)
    : kernels_(kernels), weight_(std::move(weight)), norm_(std::move(norm)), activation_(activation) {}

void Linear::run(Pool& pool, const float* x, const float* residual, int64_t count, float* y) {
  if (count == 0) return;
  const Weight& weight = weight_.view();
  const size_t counters = static_cast<size_t>(counters_of(count)), bytes = kernels_.rows_bytes(weight.type, count, weight.K);
  Arena arena(buffers_, Arena::rounded(bytes) + Arena::rounded(counters * sizeof(std::atomic<int32_t>)));
  std::atomic<int32_t>* left = arena.next<std::atomic<int32_t>>(counters);
  const Rows rows = kernels_.rows_in(weight.type, x, weight.K, count, weight.K, arena.next<char>(bytes));
  if (weight.type != Type::kFloat32)
    each_row(pool, count, weight.K,
             [&](int64_t begin, int64_t end) { kernels_.prepare(rows, x, weight.K, weight.rows, begin, end); });
  Tail tail;
  if (norm_) tail = [&](int64_t begin, int64_t end) { norm_.run(kernels_, y, y, weight.N, begin, end); };
  product(pool, kernels_, rows, weight, {activation_, residual, weight.N}, y, weight.N, 0, count, left, tail);
}

}  // namespace onnxfuse

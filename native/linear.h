// Linear: y = norm(activation(x * W + bias) + residual).
#pragma once

#include <cstdint>

#include "memory.h"
#include "pool.h"
#include "product.h"
#include "weights.h"

namespace onnxfuse {

// gamma and beta of a LayerNormalization; without gamma there is none.
struct Norm {
  Buffer gamma, beta;
  float epsilon;

  explicit operator bool() const { return gamma.data() != nullptr; }
  // y = norm(x), rows [begin,end) of N; y may be x.
  void run(const Kernels& kernels, const float* x, float* y, int64_t N, int64_t begin, int64_t end) const;
};

class Linear {
 public:
  Linear(const Kernels& kernels, PackedWeight weight, Norm norm, Activation activation);
  int64_t K() const { return weight_.view().K; }
  int64_t N() const { return weight_.view().N; }
  // x [count,K], residual [count,N] or null, y [count,N].
  void run(Pool& pool, const float* x, const float* residual, int64_t count, float* y);

 private:
  const Kernels& kernels_;
  PackedWeight weight_;
  Norm norm_;
  Activation activation_;
  Buffers buffers_;
};

}  // namespace onnxfuse

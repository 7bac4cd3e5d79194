// Encoder: the layers of an encoder with their activations in memory of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "linear.h"
#include "memory.h"
#include "pool.h"
#include "sequences.h"
#include "weights.h"

namespace onnxfuse {

struct Layer {
  PackedWeight qkv, out;
  Norm norm1;
  PackedWeight up, down;
  Norm norm2;
};

struct EncoderOptions {
  int64_t heads;
  float scale;
  Type precision;  // of attention's products
  Activation activation;
  bool pre;  // norms stand before attention and the feed-forward network, else behind
};

class Encoder {
 public:
  Encoder(const Kernels& kernels, int64_t D, std::vector<Layer> layers, EncoderOptions options);
  int64_t D() const { return D_; }
  // x, y [count,D]; bias [count] or null. sequences: of tokens, queries as keys. y may not be x.
  void run(Pool& pool, const float* x, const float* bias, const Sequences& sequences, int64_t count, float* y);

 private:
  struct Call;

  void attend(Call& call, const Layer& layer) const;
  void feed(Call& call, const Layer& layer, const Layer* next) const;
  size_t bytes(int64_t count, size_t parts) const;

  const Kernels& kernels_;
  int64_t D_, F_;  // hidden size, largest inner size
  std::vector<Layer> layers_;
  EncoderOptions options_;
  Buffers buffers_;
};

}  // namespace onnxfuse

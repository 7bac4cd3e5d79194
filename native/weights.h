// Weights as an operator's inputs give them, checked, and packed as the instruction set's products read them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels.h"
#include "memory.h"

namespace onnxfuse {

// A tensor that somebody else owns.
struct Tensor {
  int type;  // as ONNX Runtime counts them
  std::vector<int64_t> shape;
  const void* data;

  int64_t count() const;  // elements
};

// What messages call an input: "Linear, input 1 (weight)".
std::string place(const char* op, size_t index, const std::string& name);

// The constant inputs of one product; null where missing.
struct WeightInputs {
  const Tensor *weight, *scale, *rows, *bias;
};

// A weight [K,N] with all that belongs to it, in memory of its own.
class PackedWeight {
 public:
  // K, N: what the weight's axes must be, or -1. op, prefix and the `indices` of weight, scale, rows and bias among its inputs
  // are for messages. Throws Error.
  PackedWeight(const Kernels& kernels, const char* op, const size_t (&indices)[4], const std::string& prefix,
               const WeightInputs& inputs, int64_t K, int64_t N);
  const Weight& view() const { return weight_; }

 private:
  const float* kept(Buffer& to, const Tensor* from, const std::string& place, int64_t count);

  Buffer packed_, sums_, scale_, rows_, bias_;
  Weight weight_;
};

// A constant vector of `count` floats, checked; empty where it is missing.
Buffer vector_of(const Tensor* from, const std::string& place, int64_t count);

}  // namespace onnxfuse

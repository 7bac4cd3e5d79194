// One kernel of a set on random values against the portable set and against sums in double: for the self-test and the tests.
#pragma once

#include <string>

#include "kernels.h"

namespace onnxfuse {

struct ProductCase {
  Type type;
  int64_t M, K, N;
  Activation activation;
  bool bias, residual, rows;
  bool exact;       // of kInt8: column scales of 1 and nothing added, so that y shows integer sums bit by bit
  bool wild;        // rows by turns plain, with an outlier, zero, denormal, NaN, Inf, one sign, two equal extremes, huge, -Inf
  uint32_t seed;
};

// "" or what differs first: bytes and integer sums must be the same, floats near.
std::string compare_product(const Kernels& set, const ProductCase& shape);

// The same of LayerNormalization of M rows of N, of mean `mean` and deviation `deviation`; y is x where in_place.
struct NormCase {
  int64_t M, N;
  float mean, deviation;
  bool beta, in_place;
  uint32_t seed;
};
std::string compare_norm(const Kernels& set, const NormCase& shape);

// The same of attention: of sums in double; `bias`: to keys, some of them far below all others.
struct AttentionCase {
  Type type;
  int64_t queries, keys, size, v_size;
  bool bias;
  uint32_t seed;
};
std::string compare_attention(const Kernels& set, const AttentionCase& shape);

}  // namespace onnxfuse

#include "selftest.h"

#include "compare.h"

namespace onnxfuse {

std::string selftest(const Kernels& set) {
  const Type types[] = {Type::kFloat32, Type::kBFloat16, Type::kInt8};
  const Activation activations[] = {Activation::kNone, Activation::kGelu, Activation::kGeluTanh};
  uint32_t seed = 1;
  std::string error;
  for (const Type type : types)
    for (const Activation activation : activations) {
      const bool plain = activation == Activation::kNone;
      const int64_t M = plain ? 23 : 7, K = plain ? 70 : 37;
      error = compare_product(set, {type, M, K, 70, activation, !plain, !plain, !plain, plain, plain, seed++});
      if (!error.empty()) return error;
    }
  error = compare_norm(set, {3, 77, 0.5f, 2.0f, true, false, seed});
  if (!error.empty()) return error;
  for (const Type type : {Type::kFloat32, Type::kBFloat16}) {
    error = compare_attention(set, {type, 5, 19, 32, 32, true, seed});
    if (!error.empty()) return error;
  }
  return "";
}

}  // namespace onnxfuse

#include "weights.h"

#include <cstring>

#include "errors.h"
#include "ort.h"

namespace onnxfuse {
namespace {

constexpr int64_t kMostInt8 = 65536;  // rows of an int8 weight: beyond them sums leave int32

const char* name_of(int type) {
  static const char* const names[] = {"nothing", "float32", "uint8",   "int8",    "uint16", "int16",
                                      "int32",   "int64",   "string",  "bool",    "float16", "float64",
                                      "uint32",  "uint64",  "complex64", "complex128", "bfloat16"};
  return type >= 0 && type < 17 ? names[type] : "another type";
}

Type type_of(const Tensor& weight, const std::string& where) {
  if (weight.type == ort::kFloat) return Type::kFloat32;
  if (weight.type == ort::kBFloat16) return Type::kBFloat16;
  if (weight.type == ort::kInt8) return Type::kInt8;
  throw Error(where + " is " + name_of(weight.type) + "; float32, bfloat16 or int8 is wanted");
}

}  // namespace

int64_t Tensor::count() const {
  int64_t all = 1;
  for (const int64_t n : shape) all *= n;
  return all;
}

std::string place(const char* op, size_t index, const std::string& name) {
  return std::string(op) + ", input " + std::to_string(index) + " (" + name + ")";
}

Buffer vector_of(const Tensor* from, const std::string& where, int64_t count) {
  Buffer to;
  if (!from) return to;
  if (from->type != ort::kFloat) throw Error(where + " is " + name_of(from->type) + "; float32 is wanted");
  if (from->shape != std::vector<int64_t>{count})
    throw Error(where + " has shape " + text(from->shape) + "; " + text({count}) + " is wanted");
  to.grow(static_cast<size_t>(count) * sizeof(float));
  std::memcpy(to.data(), from->data, static_cast<size_t>(count) * sizeof(float));
  return to;
}

const float* PackedWeight::kept(Buffer& to, const Tensor* from, const std::string& where, int64_t count) {
  to = vector_of(from, where, count);
  return static_cast<const float*>(to.data());
}

PackedWeight::PackedWeight(const Kernels& kernels, const char* op, const size_t (&indices)[4], const std::string& prefix,
                           const WeightInputs& inputs, int64_t K, int64_t N) {
  const std::string where = place(op, indices[0], prefix + "weight");
  if (!inputs.weight) throw Error(where + " is missing");
  const Tensor& weight = *inputs.weight;
  const Type type = type_of(weight, where);
  const auto fits = [&](size_t axis, int64_t wanted) {
    return wanted < 0 ? weight.shape[axis] > 0 : weight.shape[axis] == wanted;
  };
  if (weight.shape.size() != 2 || !fits(0, K) || !fits(1, N))
    throw Error(where + " has shape " + text(weight.shape) + "; [" + (K < 0 ? "K" : std::to_string(K)) + ", " +
                (N < 0 ? "N" : std::to_string(N)) + "] is wanted, none of them 0");
  const int64_t rows = weight.shape[0], columns = weight.shape[1];
  const bool whole = type == Type::kInt8;
  if (whole && rows > kMostInt8)
    throw Error(where + " has " + std::to_string(rows) + " rows; at most " + std::to_string(kMostInt8) + " of int8 are wanted");
  if (whole && !inputs.scale) throw Error(place(op, indices[1], prefix + "scale") + " is missing; an int8 weight needs it");
  if (inputs.scale && !whole) throw Error(place(op, indices[1], prefix + "scale") + " is there; only an int8 weight has one");
  if (inputs.rows && !whole) throw Error(place(op, indices[2], prefix + "rows") + " is there; only an int8 weight has them");
  weight_ = {type, rows, columns, nullptr, nullptr, nullptr, nullptr, nullptr};
  weight_.scale = kept(scale_, inputs.scale, place(op, indices[1], prefix + "scale"), columns);
  weight_.rows = kept(rows_, inputs.rows, place(op, indices[2], prefix + "rows"), rows);
  weight_.bias = kept(bias_, inputs.bias, place(op, indices[3], prefix + "bias"), columns);
  packed_.grow(kernels.packed_bytes(type, rows, columns));
  kernels.pack(type, weight.data, rows, columns, packed_.data());
  weight_.packed = packed_.data();
  if (!whole) return;
  sums_.grow(static_cast<size_t>(columns) * sizeof(int32_t));
  int32_t* sums = static_cast<int32_t*>(sums_.data());
  std::memset(sums, 0, static_cast<size_t>(columns) * sizeof(int32_t));
  const int8_t* values = static_cast<const int8_t*>(weight.data);
  for (int64_t k = 0; k < rows; ++k)
    for (int64_t n = 0; n < columns; ++n) sums[n] += values[k * columns + n];
  weight_.sums = sums;
}

}  // namespace onnxfuse

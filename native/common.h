// What every instruction set's file needs, in each of them by itself: were it shared, the linker could give baseline code what a
// set's flags compiled.
#pragma once

#include "kernels.h"

#include <float.h>
#include <math.h>
#include <string.h>

namespace onnxfuse {
namespace {

constexpr int64_t kLine = 64;  // bytes of a cache line

inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

inline float as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline uint32_t as_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// bfloat16 of a float, halves to even; NaN stays NaN.
inline uint16_t to_bfloat16(float value) {
  const uint32_t bits = as_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float from_bfloat16(uint16_t value) { return as_float(static_cast<uint32_t>(value) << 16); }

// Bytes from row to row of values: an odd number of cache lines, so that the rows of a tile do not compete for one set.
inline int64_t row_bytes(int64_t K, int64_t element) { return (round_up(K * element, kLine) / kLine | 1) * kLine; }

// Kernels::rows_bytes where an element of values takes `element` bytes; 0 of kFloat32.
inline size_t rows_bytes_of(Type type, int64_t count, int64_t K, int64_t element) {
  if (type == Type::kFloat32) return 0;
  const int64_t head = type == Type::kInt8 ? 4 * round_up(count * 4, kLine) : 0;
  return static_cast<size_t>(head + count * row_bytes(K, element));
}

// Kernels::rows_in where an element of values takes `element` bytes: scale, zero, rest, at (of kInt8), then the values.
inline Rows rows_of(Type type, const float* x, int64_t stride, int64_t count, int64_t K, void* memory, int64_t element) {
  if (type == Type::kFloat32) return {type, count, K, stride, x, nullptr, nullptr, nullptr, nullptr};
  char* at = static_cast<char*>(memory);
  const int64_t step = round_up(count * 4, kLine), values = row_bytes(K, element) / element;
  if (type == Type::kBFloat16) return {type, count, K, values, at, nullptr, nullptr, nullptr, nullptr};
  return {type,
          count,
          K,
          values,
          at + 4 * step,
          reinterpret_cast<float*>(at),
          reinterpret_cast<int32_t*>(at + step),
          reinterpret_cast<float*>(at + 2 * step),
          reinterpret_cast<int32_t*>(at + 3 * step)};
}

// What a tile asks for while it reads a panel: with each 256 bytes some lines at a distance, which grows by `step`.
struct Ahead {
  int64_t distance, lines, step;
};

// How one row becomes bytes (see Rows).
struct Quantization {
  float scale, inverse, rest;
  int32_t zero, at;
};

// The part of a row's range that the others' is at most where an element is kept apart. On all-MiniLM-L6-v2 (800 sentences, mean
// cosine with float32) 1/2 gave 0.99945, 3/4 and 1 0.9995: 1 would keep one apart in every row.
constexpr float kFar = 0.75f;

// Whether an element lies far: without it a row spans low_rest..high_rest, with it low..high.
inline bool lies_far(float low_rest, float high_rest, float low, float high) {
  const float rest = high_rest * 0.5f - low_rest * 0.5f, all = high * 0.5f - low * 0.5f;  // halves: no range overflows
  return rest <= all * kFar && (low < 0 || high > 0);
}

// Of a row from low <= 0 to high >= 0; `rest` at column `at`, or 0 at -1. Nothing in it that a compiler may make an fma of.
inline Quantization quantization(float low, float high, float rest, int32_t at) {
  Quantization q{high / 255.0f - low / 255.0f, 0, rest, 0, at};
  if (!(q.scale >= FLT_MIN)) q.scale = 1;
  q.inverse = 1 / q.scale;
  const long zero = lrintf(-low * q.inverse);
  q.zero = static_cast<int32_t>(zero < 0 ? 0 : zero > 255 ? 255 : zero);
  return q;
}

inline void store_quantization(const Rows& rows, int64_t m, const Quantization& q) {
  const_cast<float*>(rows.scale)[m] = q.scale;
  const_cast<int32_t*>(rows.zero)[m] = q.zero;
  const_cast<float*>(rows.rest)[m] = q.rest;
  const_cast<int32_t*>(rows.at)[m] = q.at;
}

}  // namespace
}  // namespace onnxfuse

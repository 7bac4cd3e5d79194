// Rows made ready for products, and norms, on the Vector that the including file has chosen.
#pragma once

#include "common.h"

namespace onnxfuse {
namespace {

constexpr int64_t kWidth = Vector::kWidth;

// Elements [k, k + width) of x * rows, or of x where rows is null.
inline Vector::F value_at(const float* x, const float* rows, int64_t k) {
  const Vector::F v = Vector::load(x + k);
  return rows ? Vector::multiply(v, Vector::load(rows + k)) : v;
}

// The same of [K - K % width, K), and zeros.
inline Vector::F last_value(const float* x, const float* rows, int64_t K) {
  const int64_t k = K - K % kWidth;
  const Vector::Mask mask = Vector::first(K - k);
  const Vector::F v = Vector::load(x + k, mask);
  return rows ? Vector::multiply(v, Vector::load(rows + k, mask)) : v;
}

// low <= 0 and high >= 0 of a row in each lane; `finite` is 0, or NaN where an element is not finite.
struct Range {
  Vector::F low, high, finite;
};

inline void widen(Range& range, Vector::F v) {
  range.low = Vector::min(v, range.low);
  range.high = Vector::max(v, range.high);
  range.finite = Vector::fma(v, Vector::set(0.0f), range.finite);
}

inline Range joined(const Range& a, const Range& b) {
  return {Vector::min(a.low, b.low), Vector::max(a.high, b.high), Vector::add(a.finite, b.finite)};
}

constexpr Range kNone = {};

inline Range range_of(const float* x, const float* rows, int64_t K) {
  Range one = kNone, two = kNone, three = kNone, four = kNone;
  int64_t k = 0;
  for (; k + 4 * kWidth <= K; k += 4 * kWidth) {
    widen(one, value_at(x, rows, k));
    widen(two, value_at(x, rows, k + kWidth));
    widen(three, value_at(x, rows, k + 2 * kWidth));
    widen(four, value_at(x, rows, k + 3 * kWidth));
  }
  for (; k + kWidth <= K; k += kWidth) widen(one, value_at(x, rows, k));
  if (k < K) widen(two, last_value(x, rows, K));
  return joined(joined(one, two), joined(three, four));
}

// Of a row without its element `skip`.
inline Range range_without(const float* x, const float* rows, int64_t K, int64_t skip) {
  Range range = kNone;
  for (int64_t k = 0; k < K; k += kWidth) {
    Vector::F v = k + kWidth <= K ? value_at(x, rows, k) : last_value(x, rows, K);
    if (skip >= k && skip < k + kWidth) v = Vector::keep(v, Vector::except(skip - k));
    widen(range, v);
  }
  return range;
}

// The first element of a magnitude.
inline int64_t place_of(const float* x, const float* rows, int64_t K, float magnitude) {
  for (int64_t k = 0; k < K; k += kWidth) {
    const Vector::F v = k + kWidth <= K ? value_at(x, rows, k) : last_value(x, rows, K);
    const int64_t lane = Vector::first_off(Vector::unequal(Vector::magnitude(v), Vector::set(magnitude)));
    if (lane < kWidth) return k + lane;
  }
  return -1;
}

// The quantization of x[K] * rows[K]; scale is NaN where an element is not finite.
inline Quantization quantization_of(const float* x, const float* rows, int64_t K) {
  const Range range = range_of(x, rows, K);
  if (isnan(Vector::sum_of(range.finite))) return {NAN, 0, 0, 0, -1};
  const float low = Vector::min_of(range.low), high = Vector::max_of(range.high);
  // A row without the lane of its largest element spans no more than the row without that element: mostly this says enough.
  const float largest = -low > high ? -low : high;
  const Vector::F by_lane = Vector::max(Vector::magnitude(range.low), range.high);
  const Vector::Mask others = Vector::unequal(by_lane, Vector::set(largest));
  const float low_others = Vector::min_of(Vector::keep(range.low, others));
  const float high_others = Vector::max_of(Vector::keep(range.high, others));
  if (!lies_far(low_others, high_others, low, high)) return quantization(low, high, 0, -1);
  const int64_t far = place_of(x, rows, K, largest);
  const Range rest = range_without(x, rows, K, far);
  const float low_rest = Vector::min_of(rest.low), high_rest = Vector::max_of(rest.high);
  if (!lies_far(low_rest, high_rest, low, high)) return quantization(low, high, 0, -1);
  return quantization(low_rest, high_rest, rows ? x[far] * rows[far] : x[far], static_cast<int32_t>(far));
}

// Elements [k, k + 4 width) as a quantization's whole numbers, less its zero point.
inline void quantize_four(const float* x, const float* rows, int64_t k, Vector::F inverse, Vector::I (&q)[4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) q[i] = Vector::round(Vector::multiply(value_at(x, rows, k + i * kWidth), inverse));
}

inline void quantize(const float* x, const float* rows, int64_t K, const Quantization& q, Vector::Byte* values) {
  const Vector::F inverse = Vector::set(q.inverse);
  int64_t k = 0;
  for (; k + 4 * kWidth <= K; k += 4 * kWidth) {
    Vector::I four[4];
    quantize_four(x, rows, k, inverse, four);
    Vector::store_four(values + k, four, q.zero);
  }
  for (; k < K; k += kWidth) {
    const Vector::F v = k + kWidth <= K ? value_at(x, rows, k) : last_value(x, rows, K);
    const Vector::I last = Vector::round(Vector::multiply(v, inverse));
    Vector::store_bytes(values + k, Vector::add(last, Vector::set(q.zero)));
  }
  if (q.at >= 0) values[q.at] = static_cast<Vector::Byte>(q.zero);
}

inline void prepare_int8(const Rows& to, const float* x, int64_t stride, const float* rows, int64_t begin, int64_t end) {
  for (int64_t m = begin; m < end; ++m) {
    const float* row = x + m * stride;
    Vector::Byte* values = static_cast<Vector::Byte*>(const_cast<void*>(to.values)) + m * to.stride;
    const Quantization q = quantization_of(row, rows, to.K);
    store_quantization(to, m, q);
    const int64_t written = isnan(q.scale) ? 0 : to.K;
    if (written) quantize(row, rows, to.K, q, values);
    memset(values + written, 0, static_cast<size_t>(to.stride - written) * sizeof *values);
  }
}

inline void prepare_bfloat16(const Rows& to, const float* x, int64_t stride, int64_t begin, int64_t end) {
  for (int64_t m = begin; m < end; ++m) {
    Vector::Half* values = static_cast<Vector::Half*>(const_cast<void*>(to.values)) + m * to.stride;
    const float* row = x + m * stride;
    int64_t k = 0;
    for (; k + kWidth <= to.K; k += kWidth) Vector::store_bfloat16(values + k, Vector::load(row + k));
    if (k < to.K) Vector::store_bfloat16(values + k, last_value(row, nullptr, to.K)), k += kWidth;
    memset(values + k, 0, static_cast<size_t>(to.stride - k) * sizeof *values);
  }
}

// Kernels::prepare.
void prepare(const Rows& to, const float* x, int64_t stride, const float* rows, int64_t begin, int64_t end) {
  if (to.type == Type::kInt8) prepare_int8(to, x, stride, rows, begin, end);
  if (to.type == Type::kBFloat16) prepare_bfloat16(to, x, stride, begin, end);
}

// Bytes of an element of Rows::values.
int64_t row_element(Type type) {
  return type == Type::kFloat32 ? 4 : static_cast<int64_t>(type == Type::kBFloat16 ? sizeof(Vector::Half) : sizeof(Vector::Byte));
}

// Kernels::rows_bytes.
size_t rows_bytes(Type type, int64_t count, int64_t K) { return rows_bytes_of(type, count, K, row_element(type)); }

// Kernels::rows_in.
Rows rows_in(Type type, const float* x, int64_t stride, int64_t count, int64_t K, void* memory) {
  return rows_of(type, x, stride, count, K, memory, row_element(type));
}

// The sum over a row of term(v), v being its elements; the last ones' term is taken of as many of them as there are.
template <class Term>
inline float row_sum(const float* x, int64_t N, Term term) {
  Vector::F one = Vector::set(0.0f), two = one, three = one, four = one;
  int64_t k = 0;
  for (; k + 4 * kWidth <= N; k += 4 * kWidth) {
    one = Vector::add(one, term(Vector::load(x + k)));
    two = Vector::add(two, term(Vector::load(x + k + kWidth)));
    three = Vector::add(three, term(Vector::load(x + k + 2 * kWidth)));
    four = Vector::add(four, term(Vector::load(x + k + 3 * kWidth)));
  }
  for (; k + kWidth <= N; k += kWidth) one = Vector::add(one, term(Vector::load(x + k)));
  if (k < N) two = Vector::add(two, Vector::keep(term(last_value(x, nullptr, N)), Vector::first(N - k)));
  return Vector::sum_of(Vector::add(Vector::add(one, two), Vector::add(three, four)));
}

// Kernels::norm.
void norm(const float* x, int64_t x_stride, float* y, int64_t y_stride, const float* gamma, const float* beta, float epsilon,
          int64_t count, int64_t N) {
  const Vector::F none = Vector::set(0.0f);
  for (int64_t m = 0; m < count; ++m, x += x_stride, y += y_stride) {
    const Vector::F mean = Vector::set(row_sum(x, N, [](Vector::F v) { return v; }) / static_cast<float>(N));
    const float square = row_sum(x, N, [&](Vector::F v) {
      v = Vector::subtract(v, mean);
      return Vector::multiply(v, v);
    });
    const Vector::F inverse = Vector::set(1 / sqrtf(square / static_cast<float>(N) + epsilon));
    int64_t k = 0;
    for (; k + kWidth <= N; k += kWidth) {
      const Vector::F v = Vector::multiply(Vector::subtract(Vector::load(x + k), mean), inverse);
      Vector::store(y + k, Vector::fma(v, Vector::load(gamma + k), beta ? Vector::load(beta + k) : none));
    }
    if (k == N) continue;
    const Vector::F v = Vector::multiply(Vector::subtract(last_value(x, nullptr, N), mean), inverse);
    const Vector::F shift = beta ? last_value(beta, nullptr, N) : none;
    Vector::store(y + k, Vector::fma(v, last_value(gamma, nullptr, N), shift), Vector::first(N - k));
  }
}

}  // namespace
}  // namespace onnxfuse

// Kernels in plain C++: what runs where no other set does, and what tests compare the others with.
#include "common.h"

#include "attention.h"

namespace onnxfuse {
namespace {

constexpr int64_t kColumns = 16;  // of a panel

int64_t bytes_of(Type type) { return type == Type::kFloat32 ? 4 : type == Type::kBFloat16 ? 2 : 1; }

// Weights are [N/16][K][16], zeros after column N.
size_t packed_bytes(Type type, int64_t K, int64_t N) {
  return static_cast<size_t>(round_up(N, kColumns) * K * bytes_of(type));
}

template <class T>
void pack_as(const T* weight, int64_t K, int64_t N, T* packed) {
  for (int64_t from = 0; from < N; from += kColumns)
    for (int64_t k = 0; k < K; ++k)
      for (int64_t n = from; n < from + kColumns; ++n) *packed++ = n < N ? weight[k * N + n] : T(0);
}

void pack(Type type, const void* weight, int64_t K, int64_t N, void* packed) {
  if (type == Type::kFloat32) pack_as(static_cast<const float*>(weight), K, N, static_cast<float*>(packed));
  if (type == Type::kBFloat16) pack_as(static_cast<const uint16_t*>(weight), K, N, static_cast<uint16_t*>(packed));
  if (type == Type::kInt8) pack_as(static_cast<const int8_t*>(weight), K, N, static_cast<int8_t*>(packed));
}

size_t rows_bytes(Type type, int64_t count, int64_t K) { return rows_bytes_of(type, count, K, bytes_of(type)); }

Rows rows_in(Type type, const float* x, int64_t stride, int64_t count, int64_t K, void* memory) {
  return rows_of(type, x, stride, count, K, memory, bytes_of(type));
}

// Halves to even.
int32_t rounded(float value) { return static_cast<int32_t>(lrintf(value)); }

// low and high of v[K] but for v[skip], 0 included.
void range(const float* x, const float* rows, int64_t K, int64_t skip, float* low, float* high) {
  *low = *high = 0;
  for (int64_t k = 0; k < K; ++k) {
    const float v = rows ? x[k] * rows[k] : x[k];
    if (k == skip) continue;
    if (v < *low) *low = v;
    if (v > *high) *high = v;
  }
}

// The quantization of x[K] * rows[K]; scale is NaN where an element is not finite.
Quantization quantization_of(const float* x, const float* rows, int64_t K) {
  int64_t far = -1;
  float largest = -1, v_far = 0, low, high, low_rest, high_rest;
  for (int64_t k = 0; k < K; ++k) {
    const float v = rows ? x[k] * rows[k] : x[k];
    if (!isfinite(v)) return {NAN, 0, 0, 0, -1};
    if (fabsf(v) > largest) largest = fabsf(v), far = k, v_far = v;
  }
  range(x, rows, K, -1, &low, &high);
  range(x, rows, K, far, &low_rest, &high_rest);
  if (lies_far(low_rest, high_rest, low, high))
    return quantization(low_rest, high_rest, v_far, static_cast<int32_t>(far));
  return quantization(low, high, 0, -1);
}

void prepare_int8(const Rows& to, const float* x, int64_t stride, const float* rows, int64_t begin, int64_t end) {
  for (int64_t m = begin; m < end; ++m) {
    const float* row = x + m * stride;
    uint8_t* values = static_cast<uint8_t*>(const_cast<void*>(to.values)) + m * to.stride;
    const Quantization q = quantization_of(row, rows, to.K);
    store_quantization(to, m, q);
    memset(values, 0, static_cast<size_t>(to.stride));
    for (int64_t k = 0; k < to.K && !isnan(q.scale); ++k) {
      const float v = rows ? row[k] * rows[k] : row[k];
      const int32_t byte = k == q.at ? q.zero : rounded(v * q.inverse) + q.zero;
      values[k] = static_cast<uint8_t>(byte < 0 ? 0 : byte > 255 ? 255 : byte);
    }
  }
}

void prepare(const Rows& to, const float* x, int64_t stride, const float* rows, int64_t begin, int64_t end) {
  if (to.type == Type::kInt8) prepare_int8(to, x, stride, rows, begin, end);
  if (to.type != Type::kBFloat16) return;
  for (int64_t m = begin; m < end; ++m) {
    uint16_t* values = static_cast<uint16_t*>(const_cast<void*>(to.values)) + m * to.stride;
    for (int64_t k = 0; k < to.stride; ++k) values[k] = k < to.K ? to_bfloat16(x[m * stride + k]) : uint16_t(0);
  }
}

float activated(Activation activation, float x) {
  if (activation != Activation::kNone && x < -14) return 0;  // of -Inf too
  if (activation == Activation::kGelu) return x * (0.5f * (1 + erff(x * 0.70710678f)));
  if (activation == Activation::kGeluTanh) return x * (0.5f * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x))));
  return x;
}

// sums[16] of one row and one panel, in the type that they are summed in.
template <class T, class Row, class Column, class GetRow, class GetColumn>
void sums_of(const Row* row, const Column* panel, int64_t K, T* sums, GetRow get_row, GetColumn get_column) {
  for (int64_t n = 0; n < kColumns; ++n) sums[n] = 0;
  for (int64_t k = 0; k < K; ++k) {
    const T v = get_row(row[k]);
    for (int64_t n = 0; n < kColumns; ++n) sums[n] += v * get_column(panel[k * kColumns + n]);
  }
}

// x * W without bias, of one row and the 16 columns from `from`.
void row_by_panel(const Rows& rows, const Weight& weight, int64_t m, int64_t from, float* out) {
  const int64_t K = rows.K;
  if (rows.type == Type::kFloat32) {
    sums_of(static_cast<const float*>(rows.values) + m * rows.stride, static_cast<const float*>(weight.packed) + from * K, K, out,
            [](float v) { return v; }, [](float v) { return v; });
    return;
  }
  if (rows.type == Type::kBFloat16) {
    sums_of(static_cast<const uint16_t*>(rows.values) + m * rows.stride,
            static_cast<const uint16_t*>(weight.packed) + from * K, K, out, from_bfloat16, from_bfloat16);
    return;
  }
  const int8_t* panel = static_cast<const int8_t*>(weight.packed) + from * K;
  const int32_t at = rows.at[m];
  int32_t sums[kColumns];
  sums_of(static_cast<const uint8_t*>(rows.values) + m * rows.stride, panel, K, sums,
          [](uint8_t v) { return static_cast<int32_t>(v); }, [](int8_t v) { return static_cast<int32_t>(v); });
  for (int64_t n = 0; n < kColumns && from + n < weight.N; ++n) {
    const float scale = weight.scale[from + n];
    out[n] = static_cast<float>(sums[n] - rows.zero[m] * weight.sums[from + n]) * scale * rows.scale[m];
    if (at >= 0) out[n] += static_cast<float>(panel[at * kColumns + n]) * scale * rows.rest[m];
  }
}

void product(const Rows& rows, const Weight& weight, const Epilogue& epilogue, float* y, int64_t y_stride, int64_t begin,
             int64_t end, int64_t from, int64_t to) {
  for (int64_t start = from; start < to; start += kColumns)
    for (int64_t m = begin; m < end; ++m) {
      float out[kColumns];
      row_by_panel(rows, weight, m, start, out);
      for (int64_t n = start; n < start + kColumns && n < to; ++n) {
        float value = activated(epilogue.activation, out[n - start] + (weight.bias ? weight.bias[n] : 0.0f));
        if (epilogue.residual) value += epilogue.residual[m * epilogue.residual_stride + n];
        y[m * y_stride + n] = value;
      }
    }
}

void norm(const float* x, int64_t x_stride, float* y, int64_t y_stride, const float* gamma, const float* beta, float epsilon,
          int64_t count, int64_t N) {
  for (int64_t m = 0; m < count; ++m, x += x_stride, y += y_stride) {
    double mean = 0, square = 0;
    for (int64_t n = 0; n < N; ++n) mean += x[n];
    mean /= static_cast<double>(N);
    for (int64_t n = 0; n < N; ++n) square += (x[n] - mean) * (x[n] - mean);
    const double inverse = 1 / sqrt(square / static_cast<double>(N) + epsilon);
    for (int64_t n = 0; n < N; ++n)
      y[n] = static_cast<float>((x[n] - mean) * inverse) * gamma[n] + (beta ? beta[n] : 0.0f);
  }
}

}  // namespace

const Kernels* portable_kernels() {
  static const Kernels kernels = {"portable", packed_bytes, pack,    rows_bytes, rows_in, prepare,
                                  product,    kColumns,     norm,    attention::bytes, attention::run};
  return &kernels;
}

}  // namespace onnxfuse

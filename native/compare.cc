#include "compare.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "common.h"

namespace onnxfuse {
namespace {

// Memory of 64-byte alignment and just its size, so that a sanitizer sees a step beyond it.
class Block {
 public:
  explicit Block(size_t bytes) {
    if (posix_memalign(&data_, 64, bytes ? bytes : 1)) abort();
    memset(data_, 0xff, bytes);  // NaN as float and as bfloat16
  }
  ~Block() { free(data_); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
};

class Random {
 public:
  explicit Random(uint32_t seed) : state_(seed * 2654435761u + 1) {}
  uint32_t word() {
    state_ ^= state_ << 13, state_ ^= state_ >> 17, state_ ^= state_ << 5;
    return state_;
  }
  float even() { return static_cast<float>(word() >> 8) * 0x1p-23f - 1; }  // -1 .. 1
  float normal() { return (even() + even() + even()) * 1.0f; }
  std::vector<float> normals(int64_t count, float scale) {
    std::vector<float> all(static_cast<size_t>(count));
    for (float& value : all) value = normal() * scale;
    return all;
  }

 private:
  uint32_t state_;
};

std::string text(const char* format, const char* set, const char* what, long long m, long long n, double seen, double wanted,
                 double allowed) {
  char line[256];
  snprintf(line, sizeof line, format, set, what, m, n, seen, wanted, allowed);
  return line;
}

bool near(double seen, double wanted, double allowed) {
  if (isnan(wanted)) return isnan(seen);
  if (isinf(wanted)) return seen == wanted;
  return fabs(seen - wanted) <= allowed;
}

const char kDiffers[] = "%s, %s at row %lld, column %lld: %.9g, not %.9g (%.3g allowed)";

// Makes row m of x[K] what ProductCase::wild says.
void make_wild(Random& random, int64_t m, float* x, int64_t K) {
  float& one = x[random.word() % static_cast<uint32_t>(K)];
  switch (m % 10) {
    case 1: one = 60; break;
    case 2: memset(x, 0, static_cast<size_t>(K) * sizeof *x); break;
    case 3: for (int64_t k = 0; k < K; ++k) x[k] *= 1e-39f; break;
    case 4: one = NAN; break;
    case 5: one = INFINITY; break;
    case 6: for (int64_t k = 0; k < K; ++k) x[k] = fabsf(x[k]) + 1; break;
    case 7: one = -50, x[K / 2] = 50; break;
    case 8: for (int64_t k = 0; k < K; ++k) x[k] *= 1e36f; break;
    case 9: one = -INFINITY; break;
  }
}

// A product's inputs.
struct Inputs {
  ProductCase shape;
  int64_t x_stride, residual_stride;
  std::vector<float> x, rows, bias, residual, scale, floats;  // floats [K,N]: the weight's values
  std::vector<int8_t> bytes;
  std::vector<uint16_t> halves;
  std::vector<int32_t> sums;

  explicit Inputs(const ProductCase& of) : shape(of), x_stride(of.K + 3), residual_stride(of.N + 5) {
    Random random(of.seed);
    const int64_t M = of.M, K = of.K, N = of.N;
    x = random.normals(M ? (M - 1) * x_stride + K : 0, 1);
    for (int64_t m = 0; of.wild && m < M; ++m) make_wild(random, m, &x[static_cast<size_t>(m * x_stride)], K);
    if (of.rows)
      for (int64_t k = 0; k < K; ++k) rows.push_back(0.1f + fabsf(random.normal()));
    if (of.bias) bias = random.normals(N, 1);
    if (of.residual) residual = random.normals(M ? (M - 1) * residual_stride + N : 0, 1);
    sums.assign(static_cast<size_t>(N), 0);
    for (int64_t n = 0; n < N; ++n) scale.push_back(of.exact ? 1 : 0.001f + 0.001f * fabsf(random.even()));
    for (int64_t i = 0; i < K * N; ++i) {
      const float value = random.even();
      bytes.push_back(static_cast<int8_t>(random.word() % 16 ? lrintf(value * 127) : value < 0 ? -128 : 127));
      halves.push_back(to_bfloat16(value));
      sums[static_cast<size_t>(i % N)] += bytes.back();
      const float rounded = from_bfloat16(halves.back());
      floats.push_back(of.type == Type::kFloat32 ? value : of.type == Type::kBFloat16 ? rounded : bytes.back());
    }
  }

  const void* weight() const {
    const void* const all[] = {floats.data(), halves.data(), bytes.data()};
    return all[static_cast<int>(shape.type)];
  }
  const float* rows_data() const { return shape.rows && shape.type == Type::kInt8 ? rows.data() : nullptr; }
  float value(int64_t m, int64_t k) const {
    const float v = x[static_cast<size_t>(m * x_stride + k)];
    return shape.type == Type::kBFloat16 ? from_bfloat16(to_bfloat16(v)) : v;
  }
};

// A product by one set: its rows, and y with what no kernel may touch around it.
struct Run {
  Block packed, memory;
  Rows rows;
  int64_t y_stride;
  std::vector<float> y;

  Run(const Kernels& set, const Inputs& in)
      : packed(set.packed_bytes(in.shape.type, in.shape.K, in.shape.N)),
        memory(set.rows_bytes(in.shape.type, in.shape.M, in.shape.K)),
        rows(set.rows_in(in.shape.type, in.x.data(), in.x_stride, in.shape.M, in.shape.K, memory.data())),
        y_stride(in.shape.N + 1),
        y(static_cast<size_t>(in.shape.M * y_stride), 12345.0f) {
    const ProductCase& shape = in.shape;
    set.pack(shape.type, in.weight(), shape.K, shape.N, packed.data());
    const Weight weight = {shape.type,       shape.K,        shape.N,
                           packed.data(),    in.sums.data(), in.scale.data(),
                           in.rows_data(),   shape.bias ? in.bias.data() : nullptr};
    const Epilogue epilogue = {shape.activation, shape.residual ? in.residual.data() : nullptr, in.residual_stride};
    const int64_t row = shape.M / 3, column = shape.N / set.columns / 2 * set.columns;
    set.prepare(rows, in.x.data(), in.x_stride, in.rows_data(), 0, row);
    set.prepare(rows, in.x.data(), in.x_stride, in.rows_data(), row, shape.M);
    for (int part = 0; part < 4; ++part)
      set.product(rows, weight, epilogue, y.data(), y_stride, part & 1 ? row : 0, part & 1 ? shape.M : row,
                  part & 2 ? column : 0, part & 2 ? shape.N : column);
  }
};

// Element k of row m of a set's bytes: int16 where its rows are twice as long as portable's.
int byte_of(const Rows& rows, bool wide, int64_t m, int64_t k) {
  return wide ? static_cast<const int16_t*>(rows.values)[m * rows.stride + k]
              : static_cast<const uint8_t*>(rows.values)[m * rows.stride + k];
}

std::string compare_rows(const Kernels& set, const Rows& seen, const Rows& wanted, bool wide) {
  for (int64_t m = 0; m < wanted.count; ++m) {
    const bool nan = isnan(wanted.scale[m]) && isnan(seen.scale[m]);
    if (!nan && as_bits(seen.scale[m]) != as_bits(wanted.scale[m]))
      return text(kDiffers, set.name, "a row's scale", m, 0, seen.scale[m], wanted.scale[m], 0);
    if (seen.zero[m] != wanted.zero[m]) return text(kDiffers, set.name, "a row's zero", m, 0, seen.zero[m], wanted.zero[m], 0);
    if (seen.at[m] != wanted.at[m]) return text(kDiffers, set.name, "an outlier's place", m, 0, seen.at[m], wanted.at[m], 0);
    if (as_bits(seen.rest[m]) != as_bits(wanted.rest[m]))
      return text(kDiffers, set.name, "an outlier", m, 0, seen.rest[m], wanted.rest[m], 0);
    for (int64_t k = 0; k < wanted.K; ++k)
      if (byte_of(seen, wide, m, k) != byte_of(wanted, false, m, k))
        return text(kDiffers, set.name, "a byte", m, k, byte_of(seen, wide, m, k), byte_of(wanted, false, m, k), 0);
  }
  return "";
}

double activated(Activation activation, double x) {
  if (activation == Activation::kNone) return x;
  if (x < -30) return 0;  // of -Inf too
  if (activation == Activation::kGelu) return 0.5 * x * erfc(-x * 0.70710678118654752);
  return 0.5 * x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x)));
}

// y[m,n] of x that `row` has quantized, in double, and the sum of magnitudes in `size`: what roundings are relative to.
double wanted_of(const Inputs& in, const Rows& row, int64_t m, int64_t n, double* size) {
  const ProductCase& shape = in.shape;
  const bool int8 = shape.type == Type::kInt8;
  double value = 0;
  *size = 0;
  for (int64_t k = 0; k < shape.K; ++k) {
    const double w = in.floats[static_cast<size_t>(k * shape.N + n)];
    const double v = int8 ? byte_of(row, false, m, k) - row.zero[m] : in.value(m, k);
    value += v * w;
    *size += fabs(v * w);
  }
  if (int8) {
    const float column = in.scale[static_cast<size_t>(n)];
    value *= static_cast<double>(row.scale[m]) * column;
    *size = fabs(value);
    if (row.at[m] >= 0) {
      const double far = static_cast<double>(row.rest[m]) * in.floats[static_cast<size_t>(row.at[m] * shape.N + n)] * column;
      value += far;
      *size += fabs(far);
    }
  }
  if (shape.bias) value += in.bias[static_cast<size_t>(n)];
  *size += fabs(value);
  return value;
}

}  // namespace

std::string compare_product(const Kernels& set, const ProductCase& shape) {
  const Inputs in(shape);
  const Run seen(set, in), portable(*portable_kernels(), in);
  const bool int8 = shape.type == Type::kInt8, wide = int8 && !strcmp(set.name, "avx2");
  if (int8) {
    const std::string differs = compare_rows(set, seen.rows, portable.rows, wide);
    if (!differs.empty()) return differs;
  }
  // A sum of K floats in any order: each of its roundings is half an epsilon of a partial sum; integers are summed exactly.
  const double steps = int8 ? 4 : 4 + 2 * sqrt(static_cast<double>(shape.K));
  for (int64_t m = 0; m < shape.M; ++m) {
    for (int64_t n = 0; n < shape.N; ++n) {
      const float y = seen.y[static_cast<size_t>(m * seen.y_stride + n)];
      if (shape.exact && int8 && portable.rows.at[m] < 0) {
        const float same = portable.y[static_cast<size_t>(m * portable.y_stride + n)];
        if (as_bits(y) != as_bits(same) && !(isnan(y) && isnan(same)))
          return text(kDiffers, set.name, "an exact product", m, n, y, same, 0);
      }
      double size;
      double wanted = activated(shape.activation, wanted_of(in, portable.rows, m, n, &size));
      if (shape.residual) wanted += in.residual[static_cast<size_t>(m * in.residual_stride + n)];
      // 4e-7: of GELU's pieces. 1e-30: denormals that bfloat16 products take for zero.
      const double activation = shape.activation == Activation::kNone ? 1e-30 : 4e-7;
      const double allowed = (size + fabs(wanted)) * steps * FLT_EPSILON + activation;
      if (size > 1e38 && !isnan(wanted)) continue;  // float32 may overflow on the way
      if (!near(y, wanted, allowed)) return text(kDiffers, set.name, "a product", m, n, y, wanted, allowed);
    }
    if (seen.y[static_cast<size_t>(m * seen.y_stride + shape.N)] != 12345.0f)
      return text(kDiffers, set.name, "a column beyond the last", m, shape.N, 0, 0, 0);
  }
  return "";
}

std::string compare_norm(const Kernels& set, const NormCase& shape) {
  Random random(shape.seed);
  const int64_t M = shape.M, N = shape.N, x_stride = N + 2, y_stride = shape.in_place ? x_stride : N + 1;
  std::vector<float> x = random.normals(M ? (M - 1) * x_stride + N : 0, shape.deviation);
  for (float& value : x) value += shape.mean;
  const std::vector<float> gamma = random.normals(N, 1), beta = random.normals(N, 1), before = x;
  std::vector<float> apart(static_cast<size_t>(M * y_stride), 12345.0f);
  float* y = shape.in_place ? x.data() : apart.data();
  set.norm(x.data(), x_stride, y, y_stride, gamma.data(), shape.beta ? beta.data() : nullptr, 1e-5f, M, N);
  for (int64_t m = 0; m < M; ++m) {
    const float* row = before.data() + m * x_stride;
    double mean = 0, square = 0;
    for (int64_t n = 0; n < N; ++n) mean += row[n];
    mean /= static_cast<double>(N);
    for (int64_t n = 0; n < N; ++n) square += (row[n] - mean) * (row[n] - mean);
    const double inverse = 1 / sqrt(square / static_cast<double>(N) + 1e-5);
    for (int64_t n = 0; n < N; ++n) {
      const size_t place = static_cast<size_t>(n);
      const double value = (row[n] - mean) * inverse, wanted = value * gamma[place] + (shape.beta ? beta[place] : 0);
      // The mean in float32 is off by some epsilons of the largest values, which the deviation divides.
      const double size = 1 + fabs(value) + (fabs(mean) + fabs(row[n])) * inverse;
      const double allowed = 4 * FLT_EPSILON * (size * fabs(gamma[place]) + fabs(wanted)) * (1 + fabs(value)) + 1e-7;
      if (!near(y[m * y_stride + n], wanted, allowed))
        return text(kDiffers, set.name, "a norm", m, n, y[m * y_stride + n], wanted, allowed);
    }
    if (!shape.in_place && y[m * y_stride + N] != 12345.0f) return text(kDiffers, set.name, "beyond a norm", m, N, 0, 0, 0);
  }
  return "";
}

std::string compare_attention(const Kernels& set, const AttentionCase& shape) {
  Random random(shape.seed);
  const int64_t size = shape.size, v_size = shape.v_size, keys = shape.keys, queries = shape.queries;
  const std::vector<float> q = random.normals(queries * size, 1), k = random.normals(keys * size, 1);
  const std::vector<float> v = random.normals(keys * v_size, 1);
  std::vector<float> bias, out(static_cast<size_t>(queries * v_size), 12345.0f);
  for (int64_t t = 0; t < keys; ++t) bias.push_back(t % 3 == 1 ? -FLT_MAX : random.even());
  const float scale = 1 / sqrtf(static_cast<float>(size));
  const Heads heads = {q.data(), k.data(), v.data(), size,  size,  v_size, queries, keys,
                       size,     v_size,   scale,    shape.bias ? bias.data() : nullptr, out.data(), v_size};
  const Block memory(set.attention_bytes(shape.type, heads));
  set.attention(shape.type, heads, memory.data());
  for (int64_t i = 0; i < queries; ++i) {
    std::vector<double> scores;
    double most = -INFINITY, total = 0;
    for (int64_t t = 0; t < keys; ++t) {
      double score = 0;
      for (int64_t h = 0; h < size; ++h)
        score += static_cast<double>(q[static_cast<size_t>(i * size + h)]) * k[static_cast<size_t>(t * size + h)];
      scores.push_back(score * scale + (shape.bias ? bias[static_cast<size_t>(t)] : 0));
      if (scores.back() > most) most = scores.back();
    }
    for (double& score : scores) total += score = exp(score - most);
    for (int64_t h = 0; h < v_size; ++h) {
      double wanted = 0;
      for (int64_t t = 0; t < keys; ++t)
        wanted += scores[static_cast<size_t>(t)] / total * v[static_cast<size_t>(t * v_size + h)];
      // bfloat16 keeps 8 bits of q, k, v and of the softmax: scores are off by some 2^-8 of their size.
      const double allowed = shape.type == Type::kBFloat16 ? 0.06 : 1e-5;
      const float seen = out[static_cast<size_t>(i * v_size + h)];
      if (!near(seen, wanted, allowed)) return text(kDiffers, set.name, "attention", i, h, seen, wanted, allowed);
    }
  }
  return "";
}

}  // namespace onnxfuse

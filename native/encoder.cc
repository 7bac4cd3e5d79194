#include "encoder.h"

#include <algorithm>

namespace onnxfuse {
namespace {

constexpr int64_t kChunk = 512;  // rows that go through the feed-forward network at once, to stay in the last cache

using Counter = std::atomic<int32_t>;

constexpr Type kTypes[] = {Type::kFloat32, Type::kBFloat16, Type::kInt8};

// Bytes of `count` rows of K in any type.
size_t most_bytes(const Kernels& kernels, int64_t count, int64_t K) {
  size_t most = 0;
  for (const Type type : kTypes) most = std::max(most, kernels.rows_bytes(type, count, K));
  return most;
}

}  // namespace

// The memory of one call. Rows of one product are written while another's are read: each has a place of its own.
struct Encoder::Call {
  Pool& pool;
  const AttentionPlan& plan;
  const Sequences& sequences;
  const float* bias;
  int64_t count;
  const float* x;        // what the layer starts from
  float* y;              // what it gives: [count,D]
  float *half, *normed;  // [count,D]: behind attention; what norms give before a product
  float *qkv, *attended, *inner;  // [count,3D], [count,D], [kChunk,F]
  char *in_memory, *out_memory, *up_memory, *down_memory;
  Counter* left;
  Rows in;  // of the layer's first product
  Rows up;  // of the feed-forward network's
};

Encoder::Encoder(const Kernels& kernels, int64_t D, std::vector<Layer> layers, EncoderOptions options)
    : kernels_(kernels), D_(D), F_(0), layers_(std::move(layers)), options_(options) {
  for (const Layer& layer : layers_) F_ = std::max(F_, layer.up.view().N);
}

size_t Encoder::bytes(int64_t count, size_t parts) const {
  const size_t n = static_cast<size_t>(count), D = static_cast<size_t>(D_);
  const size_t counters = std::max(static_cast<size_t>(counters_of(count)), parts);
  const int64_t chunk = std::min(count, kChunk);
  return 6 * Arena::rounded(n * D * sizeof(float)) + Arena::rounded(static_cast<size_t>(chunk * F_) * sizeof(float)) +
         3 * Arena::rounded(most_bytes(kernels_, count, D_)) + Arena::rounded(most_bytes(kernels_, chunk, F_)) +
         Arena::rounded(counters * sizeof(Counter)) + 12 * kAlignment;
}

void Encoder::run(Pool& pool, const float* x, const float* bias, const Sequences& sequences, int64_t count, float* y) {
  if (count == 0) return;
  const int64_t size = D_ / options_.heads;
  const AttentionInputs shape{nullptr, nullptr, nullptr, 0,    0, 0, options_.heads, size, size,
                              options_.scale, bias, options_.precision};
  const AttentionPlan plan = attention_plan(sequences, shape, pool.threads());
  Arena arena(buffers_, bytes(count, plan.parts.size()));
  const size_t area = static_cast<size_t>(count * D_);
  const int64_t chunk = std::min(count, kChunk);
  Call call{pool, plan, sequences, bias, count, x, y,
            arena.next<float>(area), arena.next<float>(area), arena.next<float>(3 * area), arena.next<float>(area),
            arena.next<float>(static_cast<size_t>(chunk * F_)), arena.next<char>(most_bytes(kernels_, count, D_)),
            arena.next<char>(most_bytes(kernels_, count, D_)), arena.next<char>(most_bytes(kernels_, count, D_)),
            arena.next<char>(most_bytes(kernels_, chunk, F_)),
            arena.next<Counter>(std::max(static_cast<size_t>(counters_of(count)), plan.parts.size())), {}, {}};
  const int64_t first = sequences.queries.front(), last = sequences.queries.back();
  std::fill(call.attended, call.attended + first * D_, 0.0f);
  std::fill(call.attended + last * D_, call.attended + count * D_, 0.0f);
  const Weight& qkv = layers_.front().qkv.view();
  const float* source = options_.pre ? call.normed : x;
  call.in = kernels_.rows_in(qkv.type, source, D_, count, D_, call.in_memory);
  each_row(pool, count, D_, [&](int64_t begin, int64_t end) {
    if (options_.pre) layers_.front().norm1.run(kernels_, x, call.normed, D_, begin, end);
    kernels_.prepare(call.in, source, D_, qkv.rows, begin, end);
  });
  for (size_t i = 0; i < layers_.size(); ++i) {
    attend(call, layers_[i]);
    feed(call, layers_[i], i + 1 < layers_.size() ? &layers_[i + 1] : nullptr);
    call.x = y;
  }
}

// From call.in to call.half and call.up.
void Encoder::attend(Call& call, const Layer& layer) const {
  const Weight &qkv = layer.qkv.view(), &out = layer.out.view(), &up = layer.up.view();
  const int64_t size = D_ / options_.heads, stride = 3 * D_;
  product(call.pool, kernels_, call.in, qkv, {Activation::kNone, nullptr, 0}, call.qkv, stride, 0, call.count, call.left, Tail());
  const Rows rows = kernels_.rows_in(out.type, call.attended, D_, call.count, D_, call.out_memory);
  const auto prepare = [&](int64_t begin, int64_t end) { kernels_.prepare(rows, call.attended, D_, out.rows, begin, end); };
  const AttentionInputs inputs{call.qkv, call.qkv + D_, call.qkv + 2 * D_, stride, stride, stride, options_.heads, size, size,
                               options_.scale, call.bias, options_.precision};
  attention(call.pool, kernels_, call.sequences, call.plan, inputs, call.attended, D_, call.left, prepare);
  const int64_t first = call.sequences.queries.front(), last = call.sequences.queries.back();
  if (first > 0) prepare(0, first);
  if (last < call.count) prepare(last, call.count);
  float* source = options_.pre ? call.normed : call.half;
  const Norm& norm = options_.pre ? layer.norm2 : layer.norm1;
  call.up = kernels_.rows_in(up.type, source, D_, call.count, D_, call.up_memory);
  product(call.pool, kernels_, rows, out, {Activation::kNone, call.x, D_}, call.half, D_, 0, call.count, call.left,
          [&](int64_t begin, int64_t end) {
            norm.run(kernels_, call.half, source, D_, begin, end);
            kernels_.prepare(call.up, source, D_, up.rows, begin, end);
          });
}

// From call.half and call.up to call.y, and call.in of the next layer.
void Encoder::feed(Call& call, const Layer& layer, const Layer* next) const {
  const Weight &up = layer.up.view(), &down = layer.down.view();
  const int64_t F = up.N;
  float* source = options_.pre ? call.normed : call.y;
  if (next) call.in = kernels_.rows_in(next->qkv.view().type, source, D_, call.count, D_, call.in_memory);
  const auto finish = [&](int64_t begin, int64_t end) {
    if (!options_.pre) layer.norm2.run(kernels_, call.y, call.y, D_, begin, end);
    if (!next) return;
    if (options_.pre) next->norm1.run(kernels_, call.y, call.normed, D_, begin, end);
    kernels_.prepare(call.in, source, D_, next->qkv.view().rows, begin, end);
  };
  for (int64_t begin = 0; begin < call.count; begin += kChunk) {
    const int64_t end = std::min(call.count, begin + kChunk), count = end - begin;
    const Rows rows = kernels_.rows_in(down.type, call.inner, F, count, F, call.down_memory);
    product(call.pool, kernels_, call.up, up, {options_.activation, nullptr, 0}, call.inner - begin * F, F, begin, end, call.left,
            [&](int64_t first, int64_t last) {
              kernels_.prepare(rows, call.inner, F, down.rows, first - begin, last - begin);
            });
    product(call.pool, kernels_, rows, down, {Activation::kNone, call.half + begin * D_, D_}, call.y + begin * D_, D_, 0, count,
            call.left, [&](int64_t first, int64_t last) { finish(begin + first, begin + last); });
  }
}

}  // namespace onnxfuse

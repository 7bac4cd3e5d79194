// The layers on four threads against the same on one, with random shapes: what sanitizers watch. Prints "N passed, 0 failed".
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "dispatch.h"
#include "encoder.h"
#include "errors.h"
#include "linear.h"
#include "ort.h"

using namespace onnxfuse;

namespace {

// Threads that take tasks from a counter, started for each run.
class Threads : public Pool {
 public:
  explicit Threads(size_t count) : count_(count) {}
  size_t threads() const override { return count_; }
  void run(size_t count, void (*task)(void* state, size_t i), void* state) override {
    std::atomic<size_t> next{0};
    const auto work = [&] {
      for (size_t i = next++; i < count; i = next++) task(state, i);
    };
    std::vector<std::thread> others;
    for (size_t i = 1; i < count_; ++i) others.emplace_back(work);
    work();
    for (std::thread& other : others) other.join();
  }

 private:
  size_t count_;
};

std::mt19937 generator(1);

int64_t any(int64_t from, int64_t to) { return std::uniform_int_distribution<int64_t>(from, to)(generator); }

std::vector<float> floats(int64_t count, float scale) {
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> all(static_cast<size_t>(count));
  for (float& one : all) one = normal(generator);
  return all;
}

// A random weight of any type, [K,N].
PackedWeight weight(const Kernels& kernels, int64_t K, int64_t N) {
  const std::vector<float> dense = floats(K * N, 1 / std::sqrt(static_cast<float>(K))), bias = floats(N, 1);
  std::vector<uint16_t> halves(dense.size());
  std::vector<int8_t> bytes(dense.size());
  for (size_t i = 0; i < dense.size(); ++i) {
    uint32_t bits;
    std::memcpy(&bits, &dense[i], sizeof bits);
    halves[i] = static_cast<uint16_t>(bits >> 16);
    bytes[i] = static_cast<int8_t>(any(-127, 127));
  }
  const std::vector<float> scale(static_cast<size_t>(N), 0.01f / std::sqrt(static_cast<float>(K)));
  const std::vector<float> rows(static_cast<size_t>(K), 1.25f);
  const int64_t type = any(0, 2);
  const Tensor tensors[] = {{ort::kFloat, {K, N}, dense.data()}, {ort::kBFloat16, {K, N}, halves.data()},
                            {ort::kInt8, {K, N}, bytes.data()}};
  const Tensor of_scale{ort::kFloat, {N}, scale.data()}, of_rows{ort::kFloat, {K}, rows.data()};
  const Tensor of_bias{ort::kFloat, {N}, bias.data()};
  const bool whole = type == 2;
  const WeightInputs inputs{&tensors[type], whole ? &of_scale : nullptr, whole && any(0, 1) ? &of_rows : nullptr,
                            any(0, 3) ? &of_bias : nullptr};
  return PackedWeight(kernels, "Test", {1, 2, 3, 4}, "", inputs, K, N);
}

Norm norm(int64_t N) {
  const std::vector<float> gamma = floats(N, 1), beta = floats(N, 1);
  const Tensor of_gamma{ort::kFloat, {N}, gamma.data()}, of_beta{ort::kFloat, {N}, beta.data()};
  return {vector_of(&of_gamma, "gamma", N), vector_of(any(0, 2) ? &of_beta : nullptr, "beta", N), 1e-5f};
}

// Random lengths, some of them 0, of `count` tokens at most.
Sequences sequences(int64_t count) {
  std::vector<int64_t> bounds = {0};
  while (any(0, 5) && bounds.back() < count) bounds.push_back(bounds.back() + any(0, count - bounds.back()));
  return {bounds, bounds};
}

// What two runs gave, NaN as NaN.
bool same(const std::vector<float>& a, const std::vector<float>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (std::memcmp(&a[i], &b[i], sizeof(float)) && !(std::isnan(a[i]) && std::isnan(b[i]))) return false;
  return true;
}

bool linear_passes(const Kernels& kernels) {
  const int64_t K = any(1, 100), N = any(1, 300), count = any(0, 3) ? any(1, 40) : any(100, 400);
  Linear linear(kernels, weight(kernels, K, N), any(0, 1) ? norm(N) : Norm{{}, {}, 0}, static_cast<Activation>(any(0, 2)));
  const std::vector<float> x = floats(count * K, 1), residual = floats(count * N, 1);
  std::vector<float> one(static_cast<size_t>(count * N)), four(one.size());
  const float* added = any(0, 1) ? residual.data() : nullptr;
  Threads alone(1), many(4);
  linear.run(alone, x.data(), added, count, one.data());
  linear.run(many, x.data(), added, count, four.data());
  return same(one, four);
}

// Four calls at once on four threads each, against one call on one.
bool encoder_passes(const Kernels& kernels) {
  const int64_t heads = any(1, 4), D = heads * any(1, 40), F = any(1, 200);
  std::vector<Layer> layers;
  for (int64_t i = any(1, 3); i > 0; --i)
    layers.push_back({weight(kernels, D, 3 * D), weight(kernels, D, D), norm(D), weight(kernels, D, F), weight(kernels, F, D),
                      norm(D)});
  const EncoderOptions options{heads, 0.2f, any(0, 1) ? Type::kFloat32 : Type::kBFloat16, static_cast<Activation>(any(0, 2)),
                               any(0, 1) == 1};
  Encoder encoder(kernels, D, std::move(layers), options);
  const int64_t count = any(0, 3) ? any(1, 60) : any(500, 700);
  const Sequences parts = sequences(count);
  const std::vector<float> x = floats(count * D, 1), bias = floats(count, 3);
  const float* added = any(0, 1) ? bias.data() : nullptr;
  std::vector<std::vector<float>> results(5, std::vector<float>(x.size()));
  Threads alone(1);
  encoder.run(alone, x.data(), added, parts, count, results[0].data());
  std::vector<std::thread> callers;
  for (size_t i = 1; i < results.size(); ++i)
    callers.emplace_back([&, i] {
      Threads many(4);
      encoder.run(many, x.data(), added, parts, count, results[i].data());
    });
  for (std::thread& caller : callers) caller.join();
  for (size_t i = 1; i < results.size(); ++i)
    if (!same(results[0], results[i])) return false;
  return true;
}

}  // namespace

int main(int count, char** arguments) {
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 25;
  const Kernels* sets[kSets];
  const int found = kernel_sets(sets);
  int passed = 0, failed = 0;
  for (int i = 0; i < found; ++i)
    for (int round = 0; round < rounds; ++round) {
      const bool good[] = {linear_passes(*sets[i]), encoder_passes(*sets[i])};
      for (const bool one : good) ++(one ? passed : failed);
      if (!good[0] || !good[1]) std::printf("%s: round %d differs between one thread and four\n", sets[i]->name, round);
    }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed != 0;
}

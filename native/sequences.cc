#include "sequences.h"

#include <algorithm>
#include <new>

#include "memory.h"

namespace onnxfuse {
namespace {

constexpr int64_t kBlock = 48;        // queries: kernels take them in blocks that divide it, so cuts change no result
constexpr double kFewest = 12000;     // cycles that a task is worth
constexpr double kMost = 1000000;
constexpr double kEach = 5;           // tasks that a thread gets

double cost(int64_t queries, int64_t keys, int64_t size) {
  return static_cast<double>(queries) * static_cast<double>(keys + 8) * static_cast<double>(size) / 24;
}

}  // namespace

AttentionPlan attention_plan(const Sequences& sequences, const AttentionInputs& inputs, size_t threads) {
  AttentionPlan plan;
  const int64_t size = inputs.size + inputs.v_size;
  double all = 0;
  for (int64_t b = 0; b < sequences.count(); ++b)
    all += cost(sequences.queries[b + 1] - sequences.queries[b], sequences.keys[b + 1] - sequences.keys[b], size);
  const double aim = std::clamp(all * static_cast<double>(inputs.heads) / (kEach * static_cast<double>(threads)), kFewest, kMost);
  struct Sized {
    double cost;
    AttentionTask task;
  };
  std::vector<Sized> sized;
  for (int64_t b = 0; b < sequences.count(); ++b) {
    const int64_t begin = sequences.queries[b], queries = sequences.queries[b + 1] - begin;
    const int64_t keys = sequences.keys[b + 1] - sequences.keys[b];
    if (queries == 0) continue;
    const double block = cost(std::min(queries, kBlock), keys, size);
    const int64_t blocks = std::max<int64_t>(1, static_cast<int64_t>(aim / block));
    const int64_t step = std::min(queries, blocks * kBlock);
    for (int64_t q = 0; q < queries; q += step) {
      const int64_t taken = std::min(step, queries - q);
      const double head = cost(taken, keys, size);
      const int64_t heads = std::clamp<int64_t>(static_cast<int64_t>(aim / head), 1, inputs.heads);
      const int64_t group = static_cast<int64_t>(plan.parts.size());
      plan.parts.push_back(static_cast<int32_t>((inputs.heads + heads - 1) / heads));
      for (int64_t h = 0; h < inputs.heads; h += heads) {
        const int64_t count = std::min(heads, inputs.heads - h);
        sized.push_back({head * static_cast<double>(count), {b, h, count, begin + q, taken, group}});
      }
    }
  }
  std::stable_sort(sized.begin(), sized.end(), [](const Sized& a, const Sized& b) { return a.cost > b.cost; });
  plan.tasks.reserve(sized.size());
  for (const Sized& one : sized) plan.tasks.push_back(one.task);
  return plan;
}

void attention(Pool& pool, const Kernels& kernels, const Sequences& sequences, const AttentionPlan& plan,
               const AttentionInputs& inputs, float* out, int64_t out_stride, std::atomic<int32_t>* left, const Tail& tail) {
  for (size_t i = 0; i < plan.parts.size(); ++i) new (left + i) std::atomic<int32_t>(plan.parts[i]);
  std::atomic<bool> failed{false};
  pool.each(plan.tasks.size(), [&](size_t i) {
    const AttentionTask& task = plan.tasks[i];
    const int64_t key = sequences.keys[task.sequence], keys = sequences.keys[task.sequence + 1] - key;
    for (int64_t head = task.first_head; head < task.first_head + task.heads; ++head) {
      const Heads heads{inputs.q + task.first * inputs.q_stride + head * inputs.size,
                        inputs.k + key * inputs.k_stride + head * inputs.size,
                        inputs.v + key * inputs.v_stride + head * inputs.v_size,
                        inputs.q_stride, inputs.k_stride, inputs.v_stride, task.queries, keys, inputs.size, inputs.v_size,
                        inputs.scale, inputs.bias ? inputs.bias + key : nullptr,
                        out + task.first * out_stride + head * inputs.v_size, out_stride};
      void* scratch = thread_scratch(kernels.attention_bytes(inputs.precision, heads));
      if (!scratch) return failed.store(true);
      kernels.attention(inputs.precision, heads, scratch);
    }
    if (tail && left[task.group].fetch_sub(1, std::memory_order_acq_rel) == 1) tail(task.first, task.first + task.queries);
  });
  if (failed) throw std::bad_alloc();
}

}  // namespace onnxfuse

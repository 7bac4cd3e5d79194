// Attention of many sequences and heads on many threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "kernels.h"
#include "pool.h"
#include "product.h"

namespace onnxfuse {

// Where sequences lie among tokens: sequence b has the queries queries[b]..queries[b+1] and the keys keys[b]..keys[b+1].
struct Sequences {
  std::vector<int64_t> queries, keys;

  int64_t count() const { return static_cast<int64_t>(keys.size()) - 1; }
};

// All tokens of q, k and v, heads side by side; bias [key tokens] or null.
struct AttentionInputs {
  const float *q, *k, *v;
  int64_t q_stride, k_stride, v_stride;
  int64_t heads, size, v_size;  // of one head
  float scale;
  const float* bias;
  Type precision;
};

// One share of the work: some heads of some queries of a sequence.
struct AttentionTask {
  int64_t sequence, first_head, heads, first, queries;  // first: of queries among all tokens
  int64_t group;                                        // of the tasks that share these queries
};

// Cut once, run in every layer: the tasks of all sequences, the most work first.
struct AttentionPlan {
  std::vector<AttentionTask> tasks;
  std::vector<int32_t> parts;  // of each group: tasks in it
};

AttentionPlan attention_plan(const Sequences& sequences, const AttentionInputs& inputs, size_t threads);

// out [query tokens, heads * v_size]; `tail` follows whole rows of sequences that have keys or none. left: memory of parts.size()
// counters. Throws std::bad_alloc where a thread finds no scratch.
void attention(Pool& pool, const Kernels& kernels, const Sequences& sequences, const AttentionPlan& plan,
               const AttentionInputs& inputs, float* out, int64_t out_stride, std::atomic<int32_t>* left, const Tail& tail);

}  // namespace onnxfuse

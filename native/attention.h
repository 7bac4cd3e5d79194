// Attention of one head on one thread, for whichever instruction set the including file is compiled for. To include it: in the
// set's file, after <immintrin.h> and outside of any namespace, write
//   #include "attention.h"
// and put `attention::bytes, attention::run` into Kernels::attention_bytes and Kernels::attention. It picks its vectors itself,
// by __AVX512F__ and __AVX2__ (which needs -mfma too); bfloat16 products are made where __AVX512BF16__, in float32 elsewhere.
// Everything lies in the anonymous namespace: no two files share code.
//
// Queries are taken in blocks of kBlock lanes, keys in blocks of kKeys. A block's scores are held as [keys][queries], so that
// the maximum and the sum over keys go lane by lane, keys and values are read where they lie, and only queries are turned over:
//   scores[t][q] = sum_h k[t][h] * turned[h][q]              (tiles of 8 keys x 3 vectors of queries)
//   out[q][h] = sum_t exp(scores[t][q] - most[q]) * v[t][h]  (tiles of 6 queries x 4 vectors of a head)
// With more than one block of keys the maximum is a running one, and what is summed so far is scaled down when it grows.
// In bfloat16 two elements of h, or of t, stand side by side; keys and values are turned into such pairs first.
#pragma once

#include "attention_tiles.h"
#include "kernels.h"

namespace onnxfuse {
namespace {
namespace attention {

constexpr int64_t kBlock = 3 * kLanes;  // queries in a block
constexpr int64_t kKeys = 256;          // keys in a block; even

// The memory of one call.
template <class Form>
struct Memory {
  using Element = typename Form::Element;
  Element* turned;  // [steps][kBlock]: queries times scale
  Element *k, *v;   // of Pairs: [keys][steps] and [keys / 2][width]; of Singles v is the last, partial vector of a head
  float* scores;    // [kKeys][kBlock]
  float* sums;      // [kBlock][width]: of values so far
  float *most, *total, *factor;  // [kBlock]
};

inline int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Products over n elements take so many steps.
template <class Form>
int64_t steps_of(int64_t n) {
  return (n + Form::kWide - 1) / Form::kWide;
}

// The memory of a call from `memory` on; `bytes`: how much it is.
template <class Form>
Memory<Form> memory_in(const Heads& heads, void* memory, size_t* bytes) {
  Memory<Form> m;
  float* at = static_cast<float*>(memory);
  const auto take = [&](int64_t count) {
    float* from = at;
    at += (count + 15) / 16 * 16;
    return from;
  };
  const auto elements = [&](int64_t count) { return reinterpret_cast<typename Form::Element*>(take(count)); };
  const int64_t keys = heads.keys < kKeys ? heads.keys : kKeys, width = padded(heads.v_size), steps = steps_of<Form>(heads.size);
  const bool pairs = Form::kWide == 2;
  m.turned = elements(steps * kBlock);
  m.k = elements(pairs ? heads.keys * steps : 0);
  m.v = elements(pairs ? steps_of<Form>(heads.keys) * width : heads.v_size % kLanes ? keys * kLanes : 0);
  m.scores = take((keys + 1) * kBlock);
  m.sums = take(kBlock * width);
  m.most = take(kBlock);
  m.total = take(kBlock);
  m.factor = take(kBlock);
  *bytes = static_cast<size_t>(reinterpret_cast<char*>(at) - static_cast<char*>(memory));
  return m;
}

// turned[h][q] = q[q][h] * scale, `lanes` of q, zeros beyond `queries`.
inline void turn(const float* q, int64_t stride, int64_t queries, int64_t size, int64_t lanes, float scale, float* turned) {
  for (int64_t first = 0; first < lanes; first += kLanes) {
    int64_t h = 0;
    for (; h + kLanes <= size; h += kLanes) {
      Floats rows[kLanes];
      for (int i = 0; i < kLanes; ++i)
        rows[i] = first + i < queries ? load(q + (first + i) * stride + h) * all(scale) : all(0);
      transpose(rows);
      for (int i = 0; i < kLanes; ++i) store(turned + (h + i) * lanes + first, rows[i]);
    }
    for (; h < size; ++h)
      for (int64_t i = first; i < first + kLanes; ++i) turned[h * lanes + i] = i < queries ? q[i * stride + h] * scale : 0;
  }
}

#if defined(__AVX512BF16__)

constexpr int64_t kMost = 2 * kLanes;  // elements in a vector of pairs

// The mask of elements from..from+kLanes that lie below `end`.
inline __mmask16 below(int64_t from, int64_t end) {
  return end - from >= kLanes ? 0xffff : end <= from ? 0 : static_cast<__mmask16>((1u << (end - from)) - 1);
}

// 32 elements of a row from h on, zeros from `size` on, as pairs times scale.
inline __m512i pairs_at(const float* row, int64_t h, int64_t size, Floats scale) {
  const Floats first = _mm512_maskz_loadu_ps(below(h, size), row + h);
  const Floats second = _mm512_maskz_loadu_ps(below(h + kLanes, size), row + h + kLanes);
  return Pairs::rounded(first * scale, second * scale);
}

// As above, in pairs of h.
inline void turn(const float* q, int64_t stride, int64_t queries, int64_t size, int64_t lanes, float scale, uint32_t* turned) {
  const int64_t steps = (size + 1) / 2;
  for (int64_t first = 0; first < lanes; first += kLanes)
    for (int64_t h = 0; h < size; h += kMost) {
      Floats rows[kLanes];
      for (int i = 0; i < kLanes; ++i)
        rows[i] = first + i < queries ? (Floats)pairs_at(q + (first + i) * stride, h, size, all(scale)) : all(0);
      transpose(rows);
      for (int64_t i = 0; i < kLanes && h / 2 + i < steps; ++i) store((float*)turned + (h / 2 + i) * lanes + first, rows[i]);
    }
}

// Keys in pairs of h, values in pairs of keys; zeros where there is none.
inline void pair_up(const Heads& heads, const Memory<Pairs>& memory) {
  const int64_t steps = (heads.size + 1) / 2, width = padded(heads.v_size);
  for (int64_t t = 0; t < heads.keys; ++t)
    for (int64_t h = 0; h < heads.size; h += kMost)
      _mm512_mask_storeu_epi32(memory.k + t * steps + h / 2, below(h / 2, steps),
                               pairs_at(heads.k + t * heads.k_stride, h, heads.size, all(1)));
  for (int64_t t = 0; t < heads.keys; t += 2)
    for (int64_t h = 0; h < width; h += kLanes) {
      const float* row = heads.v + t * heads.v_stride + h;
      const Floats first = _mm512_maskz_loadu_ps(below(h, heads.v_size), row);
      const Floats second = t + 1 < heads.keys ? _mm512_maskz_loadu_ps(below(h, heads.v_size), row + heads.v_stride) : all(0);
      _mm512_storeu_si512(memory.v + t / 2 * width + h, Pairs::zipped(first, second));
    }
}

#endif

// One block of keys and what it is multiplied with: where they lie.
template <class Form>
struct Keys {
  int64_t from, count;
  const typename Form::Element *k, *v;
  int64_t k_stride, v_stride;  // v: from step to step
};

inline Keys<Singles> keys_of(const Heads& heads, const Memory<Singles>&, int64_t from, int64_t count) {
  return {from, count, heads.k + from * heads.k_stride, heads.v + from * heads.v_stride, heads.k_stride, heads.v_stride};
}

#if defined(__AVX512BF16__)
inline Keys<Pairs> keys_of(const Heads& heads, const Memory<Pairs>& memory, int64_t from, int64_t count) {
  const int64_t steps = (heads.size + 1) / 2, width = padded(heads.v_size);
  return {from, count, memory.k + from * steps, memory.v + from / 2 * width, steps, width};
}

// The last, partial vector of values: they are padded.
inline Keys<Pairs> edge_of(const Heads&, const Memory<Pairs>&, Keys<Pairs> keys, int64_t whole) {
  keys.v += whole;
  return keys;
}
#endif

// The last, partial vector of values, copied to where zeros follow it.
inline Keys<Singles> edge_of(const Heads& heads, const Memory<Singles>& memory, Keys<Singles> keys, int64_t whole) {
  for (int64_t t = 0; t < keys.count; ++t)
    for (int64_t i = 0; i < kLanes; ++i)
      memory.v[t * kLanes + i] = whole + i < heads.v_size ? keys.v[t * keys.v_stride + whole + i] : 0;
  keys.v = memory.v, keys.v_stride = kLanes;
  return keys;
}

// The product of a block's exponents with values: into memory.sums, and with the last block of keys into out.
template <class Form>
void values(const Heads& heads, const Memory<Form>& memory, int64_t lanes, int64_t first, int64_t queries,
            const Keys<Form>& keys) {
  const bool last = keys.from + keys.count == heads.keys;
  const int64_t width = padded(heads.v_size), whole = heads.v_size / kLanes * kLanes, steps = steps_of<Form>(keys.count);
  const auto* p = reinterpret_cast<const typename Form::Element*>(memory.scores);
  float* out = heads.out + first * heads.out_stride;
  const auto target_at = [&](int64_t h) {
    Target target{keys.from ? memory.sums + h : nullptr, memory.sums + h, width, width, memory.factor, nullptr};
    if (last) target.after = memory.total;
    if (last && h < whole) target.to = out + h, target.to_stride = heads.out_stride;
    return target;
  };
  int64_t h = 0;
  for (; h + kHeadTile * kLanes <= whole; h += kHeadTile * kLanes)
    value_column<Form, kHeadTile>(p, lanes, keys.v + h, keys.v_stride, steps, queries, target_at(h));
  for (; h + 2 * kLanes <= whole; h += 2 * kLanes)
    value_column<Form, 2>(p, lanes, keys.v + h, keys.v_stride, steps, queries, target_at(h));
  for (; h < whole; h += kLanes) value_column<Form, 1>(p, lanes, keys.v + h, keys.v_stride, steps, queries, target_at(h));
  if (whole == width) return;
  const Keys<Form> edge = edge_of(heads, memory, keys, whole);
  value_column<Form, 1>(p, lanes, edge.v, edge.v_stride, steps, queries, target_at(whole));
  const size_t rest = static_cast<size_t>(heads.v_size - whole) * sizeof(float);
  for (int64_t q = 0; last && q < queries; ++q)
    memcpy(out + q * heads.out_stride + whole, memory.sums + q * width + whole, rest);
}

// The queries first..first+queries of V vectors, against all keys.
template <class Form, int V>
void block(const Heads& heads, const Memory<Form>& memory, int64_t first, int64_t queries) {
  constexpr int64_t lanes = V * kLanes;
  turn(heads.q + first * heads.q_stride, heads.q_stride, queries, heads.size, lanes, heads.scale, memory.turned);
  for (int64_t i = 0; i < lanes; ++i) memory.most[i] = kNone, memory.total[i] = 0, memory.factor[i] = 0;
  for (int64_t from = 0; from < heads.keys; from += kKeys) {
    const int64_t count = heads.keys - from < kKeys ? heads.keys - from : kKeys;
    const Keys<Form> keys = keys_of(heads, memory, from, count);
    float before[lanes];
    memcpy(before, memory.most, sizeof before);
    score<Form, V>(memory.turned, keys.k, keys.k_stride, steps_of<Form>(heads.size), count,
                   heads.bias ? heads.bias + from : nullptr, memory.scores, memory.most);
    for (int64_t l = 0; from && l < lanes; l += kLanes) store(memory.factor + l, Shares(load(memory.most + l))(load(before + l)));
    exponents<Form, V>(memory.scores, count, memory.most, memory.factor, memory.total);
    for (int64_t l = 0; from + count == heads.keys && l < lanes; l += kLanes)
      store(memory.total + l, all(1) / load(memory.total + l));
    values(heads, memory, lanes, first, queries, keys);
  }
}

template <class Form>
void blocks(const Heads& heads, const Memory<Form>& memory) {
  for (int64_t first = 0; first < heads.queries; first += kBlock) {
    const int64_t queries = heads.queries - first < kBlock ? heads.queries - first : kBlock;
    if (queries > 2 * kLanes) block<Form, 3>(heads, memory, first, queries);
    else if (queries > kLanes) block<Form, 2>(heads, memory, first, queries);
    else block<Form, 1>(heads, memory, first, queries);
  }
}

// Kernels::attention_bytes.
inline size_t bytes(Type type, const Heads& heads) {
  size_t count;
#if defined(__AVX512BF16__)
  if (type == Type::kBFloat16) return memory_in<Pairs>(heads, nullptr, &count), count;
#endif
  (void)type;
  memory_in<Singles>(heads, nullptr, &count);
  return count;
}

// Kernels::attention.
inline void run(Type type, const Heads& heads, void* space) {
  size_t count;
  (void)type;
  for (int64_t q = 0; heads.keys == 0 && q < heads.queries; ++q)
    for (int64_t h = 0; h < heads.v_size; ++h) heads.out[q * heads.out_stride + h] = 0;
  if (heads.keys == 0) return;
#if defined(__AVX512BF16__)
  if (type == Type::kBFloat16) {
    const Memory<Pairs> memory = memory_in<Pairs>(heads, space, &count);
    pair_up(heads, memory);
    return blocks(heads, memory);
  }
#endif
  blocks(heads, memory_in<Singles>(heads, space, &count));
}

}  // namespace attention
}  // namespace
}  // namespace onnxfuse

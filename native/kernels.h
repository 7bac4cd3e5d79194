// What one instruction set brings: products with their epilogues, norms and attention, each on one thread.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onnxfuse {

enum class Type : int { kFloat32, kBFloat16, kInt8 };

enum class Activation : int { kNone, kGelu, kGeluTanh };

// A weight [K,N] as products read it; made once, when a session opens.
struct Weight {
  Type type;
  int64_t K, N;
  const void* packed;   // as Kernels::pack wrote it
  const int32_t* sums;  // [N] of kInt8: the sum of each column
  const float* scale;   // [N] of kInt8: a column's scale
  const float* rows;    // [K] or null, of kInt8: a row's scale, by which x is multiplied before it is quantized
  const float* bias;    // [N] or null
};

// Rows as products read them, in memory of Kernels::rows_bytes. Of kInt8 x[m,k] = scale[m] * (values[m,k] - zero[m]), but for
// one element a row at most: where one lies far from all others it is left out of scale and zero, its byte is zero[m], and it
// stands itself, rest[m] (float32), at column at[m] (-1 in rows without one). In exact terms, v being a row times Weight::rows:
//   j = the first of the largest |v|; low = min(v, 0), high = max(v, 0) over all k; low', high' the same over k != j;
//   j is kept apart where high' - low' <= 0.75 * (high - low), and low', high' stand for low, high from here on;
//   scale = high / 255 - low / 255, or 1 below the smallest normal float; i = 1 / scale;
//   zero = round(-low * i); byte = round(v * i) + zero, both clipped to 0..255, halves to even, all in float32 without fma.
// No sum is in it, so no order matters, and every instruction set gives the same. A row with NaN or Inf: scale = NaN, bytes 0.
// Sums are int32: K of kInt8 is 65536 at most. Values lie as the set's products want them: padded, and wider in some sets
// (avx2: int16 of kInt8; avx2 and avx_vnni: float, rounded to bfloat16, of kBFloat16).
struct Rows {
  Type type;
  int64_t count, K, stride;  // stride: elements from row to row of values
  const void* values;        // float, bfloat16 or u8
  const float* scale;
  const int32_t* zero;
  const float* rest;
  const int32_t* at;
};

// What is done to a product's sums: y = activation(x * W + bias) + residual.
struct Epilogue {
  Activation activation;
  const float* residual;  // or null
  int64_t residual_stride;
};

// Attention of the queries of one head to the keys of one sequence: out = softmax(scale * q k^T + bias) v.
struct Heads {
  const float *q, *k, *v;
  int64_t q_stride, k_stride, v_stride;  // from token to token
  int64_t queries, keys, size, v_size;   // size: of a head
  float scale;
  const float* bias;  // [keys] or null
  float* out;
  int64_t out_stride;
};

struct Kernels {
  const char* name;  // of the instruction set
  size_t (*packed_bytes)(Type, int64_t K, int64_t N);
  void (*pack)(Type, const void* weight, int64_t K, int64_t N, void* packed);  // weight: [K,N] of float, bfloat16 or s8
  size_t (*rows_bytes)(Type, int64_t count, int64_t K);
  // The form of rows in `memory` (64-byte aligned), values not written yet; of kFloat32 values are x itself.
  Rows (*rows_in)(Type, const float* x, int64_t stride, int64_t count, int64_t K, void* memory);
  // Writes rows [begin,end) of what rows_in gave. `rows`: Weight::rows or null.
  void (*prepare)(const Rows&, const float* x, int64_t stride, const float* rows, int64_t begin, int64_t end);
  // y [.,N] at rows [begin,end) and columns [from,to); `from` is a multiple of `columns`.
  void (*product)(const Rows&, const Weight&, const Epilogue&, float* y, int64_t y_stride, int64_t begin, int64_t end,
                  int64_t from, int64_t to);
  int64_t columns;  // of a panel
  // LayerNormalization of rows of N: y may be x. beta may be null.
  void (*norm)(const float* x, int64_t x_stride, float* y, int64_t y_stride, const float* gamma, const float* beta, float epsilon,
               int64_t count, int64_t N);
  size_t (*attention_bytes)(Type, const Heads&);
  void (*attention)(Type, const Heads&, void* memory);  // kFloat32 or kBFloat16: of its two products
};

// One for each instruction set, null where this build has it not. Callers ask the CPU first.
const Kernels* portable_kernels();
const Kernels* avx2_kernels();
const Kernels* avx_vnni_kernels();
const Kernels* avx512_kernels();  // AVX512-VNNI, and AVX512-BF16 where `dispatch` finds it
const Kernels* amx_kernels();

}  // namespace onnxfuse

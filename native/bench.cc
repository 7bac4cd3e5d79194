// What kernels reach of what the machine does at most, which loops of one instruction on registers tell: `bench [set]`.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "dispatch.h"

namespace onnxfuse {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// The best of some times in seconds of one call of work(thread, threads) on each thread.
double seconds(int threads, const std::function<void(int, int)>& work, double least = 0.02) {
  long repeats = 1;
  double best = 1e30;
  for (int turn = 0; turn < 7; ++turn) {
    const auto body = [&](int thread) {
      for (long i = 0; i < repeats; ++i) work(thread, threads);
    };
    const double start = now();
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread) others.emplace_back(body, thread);
    body(0);
    for (std::thread& other : others) other.join();
    const double took = now() - start;
    if (took < least) {
      const double more = std::min(100.0, 1.2 * least / (took + 1e-9));
      repeats = std::max(repeats + 1, static_cast<long>(static_cast<double>(repeats) * more));
      turn = -1;
      continue;
    }
    best = std::min(best, took / static_cast<double>(repeats));
  }
  return best;
}

#if defined(__x86_64__)

// An instruction on registers 14 and 15 into register N; one pair of vpmaddwd and vpaddd; twelve of either.
#define ONE(I, R, N) I " %%" R "14, %%" R "15, %%" R #N "\n"
#define PAIR(I, R, N) "vpmaddwd %%ymm14, %%ymm15, %%ymm13\nvpaddd %%ymm13, %%ymm" #N ", %%ymm" #N "\n"
#define TWELVE(O, I, R)                                                                                     \
  O(I, R, 0) O(I, R, 1) O(I, R, 2) O(I, R, 3) O(I, R, 4) O(I, R, 5) O(I, R, 6) O(I, R, 7) O(I, R, 8) O(I, R, 9) \
  O(I, R, 10) O(I, R, 11)
#define TWELVE_MORE(I)                                                                                                    \
  ONE(I, "zmm", 16) ONE(I, "zmm", 17) ONE(I, "zmm", 18) ONE(I, "zmm", 19) ONE(I, "zmm", 20) ONE(I, "zmm", 21)             \
  ONE(I, "zmm", 22) ONE(I, "zmm", 23) ONE(I, "zmm", 24) ONE(I, "zmm", 25) ONE(I, "zmm", 26) ONE(I, "zmm", 27)
#define LOOP(BODY)                                                                                                        \
  asm volatile("vpxor %%xmm14, %%xmm14, %%xmm14\n\tvpxor %%xmm15, %%xmm15, %%xmm15" : : : "xmm14", "xmm15");            \
  for (long i = 0; i < rounds; ++i)                                                                                       \
  asm volatile(BODY : : : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", \
               "xmm13")

// Instructions of `rounds` loops, which take 24 each; those above register 15 are no compiler's here.
void run_avx2_int8(long rounds) { LOOP(TWELVE(PAIR, "", "") TWELVE(PAIR, "", "")); }
void run_avx2_float(long rounds) { LOOP(TWELVE(ONE, "vfmadd231ps", "ymm") TWELVE(ONE, "vfmadd231ps", "ymm")); }
#ifndef ONNXFUSE_NO_AVX_VNNI
void run_vnni(long rounds) { LOOP(TWELVE(ONE, "%{vex%} vpdpbusd", "ymm") TWELVE(ONE, "%{vex%} vpdpbusd", "ymm")); }
#else
void run_vnni(long) {}
#endif
void run_avx512_int8(long rounds) { LOOP(TWELVE(ONE, "vpdpbusd", "zmm") TWELVE_MORE("vpdpbusd")); }
#ifndef ONNXFUSE_NO_AVX512_BF16
void run_avx512_pairs(long rounds) { LOOP(TWELVE(ONE, "vdpbf16ps", "zmm") TWELVE_MORE("vdpbf16ps")); }
#else
void run_avx512_pairs(long) {}
#endif
void run_avx512_float(long rounds) { LOOP(TWELVE(ONE, "vfmadd231ps", "zmm") TWELVE_MORE("vfmadd231ps")); }

#endif

// How products of a type are made in a set, and its operations an instruction.
struct Peak {
  const char* set;
  Type type;
  const char* instruction;
  void (*run)(long rounds);
  double operations;
  bool pairs;  // of AVX512-BF16
};

#if defined(__x86_64__)
const Peak kPeaks[] = {
    {"avx2", Type::kInt8, "vpmaddwd, vpaddd", run_avx2_int8, 32, false},
    {"avx2", Type::kBFloat16, "vfmadd231ps", run_avx2_float, 16, false},
    {"avx2", Type::kFloat32, "vfmadd231ps", run_avx2_float, 16, false},
    {"avx_vnni", Type::kInt8, "vpdpbusd ymm", run_vnni, 64, false},
    {"avx_vnni", Type::kBFloat16, "vfmadd231ps", run_avx2_float, 16, false},
    {"avx_vnni", Type::kFloat32, "vfmadd231ps", run_avx2_float, 16, false},
    {"avx512", Type::kInt8, "vpdpbusd zmm", run_avx512_int8, 128, false},
    {"avx512", Type::kBFloat16, "vdpbf16ps", run_avx512_pairs, 64, true},
    {"avx512", Type::kFloat32, "vfmadd231ps zmm", run_avx512_float, 32, false},
};
#else
const Peak kPeaks[] = {{"", Type::kFloat32, "", nullptr, 0, false}};
#endif

const char* name_of(Type type) { return type == Type::kInt8 ? "int8" : type == Type::kBFloat16 ? "bfloat16" : "float32"; }

// How a set's products of a type are made; null where this is not known.
const Peak* peak_of(const Kernels& set, Type type) {
  for (const Peak& peak : kPeaks)
    if (!strcmp(peak.set, set.name) && peak.type == type && (!peak.pairs || cpu().avx512_bf16)) return &peak;
  return nullptr;
}

// Memory of 64-byte alignment.
struct Buffer {
  explicit Buffer(size_t bytes) : data(aligned_alloc(64, (bytes + 127) / 64 * 64)) { memset(data, 0, (bytes + 127) / 64 * 64); }
  ~Buffer() { free(data); }
  Buffer(const Buffer&) = delete;
  void* data;
};

// One product of random values; `copies` of its weight, taken by turns.
struct Product {
  const Kernels& set;
  Type type;
  int64_t M, K, N, copies;
  std::vector<float> x, y, scale, bias;
  std::vector<int32_t> sums;
  Buffer packed, memory;
  Rows rows;
  Epilogue epilogue{Activation::kNone, nullptr, 0};

  Product(const Kernels& of, Type t, int64_t m, int64_t k, int64_t n, int64_t c = 1)
      : set(of), type(t), M(m), K(k), N(n), copies(c), x(static_cast<size_t>(m * k)), y(static_cast<size_t>(m * n)),
        scale(static_cast<size_t>(n), 0.01f), bias(static_cast<size_t>(n), 0.5f), sums(static_cast<size_t>(n), 3),
        packed(set.packed_bytes(t, k, n) * static_cast<size_t>(c)), memory(set.rows_bytes(t, m, k)),
        rows(set.rows_in(t, x.data(), k, m, k, memory.data)) {
    for (float& value : x) value = static_cast<float>(rand() % 2001 - 1000) * 1e-3f;
    prepare(0, M);
  }
  void prepare(int64_t begin, int64_t end) { set.prepare(rows, x.data(), K, nullptr, begin, end); }
  void multiply(int64_t from, int64_t to, int64_t copy = 0) {
    const char* at = static_cast<const char*>(packed.data) + static_cast<size_t>(copy) * set.packed_bytes(type, K, N);
    const Weight weight = {type, K, N, at, sums.data(), scale.data(), nullptr, bias.data()};
    set.product(rows, weight, epilogue, y.data(), N, 0, M, from, to);
  }
  double operations() const { return 2.0 * static_cast<double>(M * K) * static_cast<double>(N); }
  // Columns of a thread.
  int64_t share(int thread, int threads) const {
    return thread == threads ? N : N / set.columns * thread / threads * set.columns;
  }
};

// Each shape's time is taken in turn with that of the peak: a neighbour on the machine slows both.
void bench_products(const Kernels& set, Type type) {
  const Peak* peak = peak_of(set, type);
  if (!peak) return;
  for (const int threads : {1, 2}) {
    printf("%-8s %-8s %d thread%s, TOPS of the peak (%s), reached:", set.name, name_of(type), threads, threads > 1 ? "s" : "",
           peak->instruction);
    const int64_t shapes[][3] = {{128, 768, 3072}, {128, 3072, 768}, {128, 768, 768}, {512, 768, 3072},
                                 {512, 3072, 768}, {16, 768, 3072},  {6, 768, 3072}};
    for (const auto& shape : shapes) {
      Product product(set, type, shape[0], shape[1], shape[2]);
      double most = 0, reached = 0;
      for (int turn = 0; turn < 5; ++turn) {
        const double loop = seconds(threads, [&](int, int) { peak->run(1000); }, 0.003);
        most = std::max(most, threads * 24e-9 * peak->operations / loop);
        reached = std::max(reached, product.operations() * 1e-12 / seconds(threads, [&](int thread, int of) {
          product.multiply(product.share(thread, of), product.share(thread + 1, of));
        }, 0.003));
      }
      const auto length = [&](int i) { return static_cast<int>(shape[i]); };
      printf("  %dx%dx%d %.3f %.3f %.0f%%", length(0), length(1), length(2), most, reached, 100 * reached / most);
    }
    printf("\n");
  }
}

// Weights of 64 MB and more, by turns: what a short sequence takes of memory's speed.
void bench_streams(const Kernels& set, Type type, int threads) {
  printf("%-8s %-8s %d threads, weights from memory:", set.name, name_of(type), threads);
  const double bytes = static_cast<double>(set.packed_bytes(type, 768, 3072));
  const int64_t copies = static_cast<int64_t>(96e6 / bytes) + 1;
  {
    Buffer all(static_cast<size_t>(96e6));
    std::vector<long> sums(64 * static_cast<size_t>(threads));
    const double took = seconds(threads, [&](int thread, int of) {
      typedef long Lane __attribute__((vector_size(16)));
      const Lane* at = static_cast<const Lane*>(all.data) + 6000000L * thread / of;
      Lane one{}, two{}, three{}, four{};
      for (long i = 0; i < 6000000L / of; i += 4) one += at[i], two += at[i + 1], three += at[i + 2], four += at[i + 3];
      sums[64 * static_cast<size_t>(thread)] += (one + two + three + four)[0];
    });
    printf(" read %.1f GB/s", 96e-3 / took);
  }
  for (const int64_t M : {1, 2, 6, 8, 12, 16, 32}) {
    Product product(set, type, M, 768, 3072, copies);
    const double took = seconds(threads, [&](int thread, int of) {
      for (int64_t copy = 0; copy < copies; ++copy)
        product.multiply(product.share(thread, of), product.share(thread + 1, of), copy);
    });
    printf("  M=%d %.1f GB/s", static_cast<int>(M), bytes * static_cast<double>(copies) * 1e-9 / took);
  }
  printf("\n");
}

// Times of what goes around a product of 128 rows, as shares of the product.
void bench_rest(const Kernels& set) {
  for (const Type type : {Type::kInt8, Type::kBFloat16}) {
    for (const int64_t K : {768, 3072}) {
      Product product(set, type, 128, K, K == 768 ? 3072 : 768);
      const double whole = seconds(1, [&](int, int) { product.multiply(0, product.N); });
      const double prepare = seconds(1, [&](int, int) { product.prepare(0, 128); });
      printf("%-8s %-8s 128x%dx%d %.1f us; prepare %.1f us (%.1f %%)", set.name, name_of(type), static_cast<int>(K),
             static_cast<int>(product.N), whole * 1e6, prepare * 1e6, 100 * prepare / whole);
      const auto more = [&](const char* name, double took) { printf(", %s +%.1f %%", name, 100 * (took / whole - 1)); };
      product.epilogue.activation = Activation::kGelu;
      more("GELU", seconds(1, [&](int, int) { product.multiply(0, product.N); }));
      product.epilogue.activation = Activation::kGeluTanh;
      more("tanh GELU", seconds(1, [&](int, int) { product.multiply(0, product.N); }));
      product.epilogue = {Activation::kNone, product.y.data(), product.N};
      more("residual", seconds(1, [&](int, int) { product.multiply(0, product.N); }));
      product.epilogue = {Activation::kNone, nullptr, 0};
      for (int64_t m = 0; m < 128; ++m) product.x[static_cast<size_t>(m * K + m)] = 100;
      product.prepare(0, 128);
      more("outliers", seconds(1, [&](int, int) { product.multiply(0, product.N); }));
      printf(", prepare with outliers %.1f us\n", 1e6 * seconds(1, [&](int, int) { product.prepare(0, 128); }));
    }
  }
  std::vector<float> x(128 * 768, 0.5f), y(128 * 768), gamma(768, 1);
  for (float& value : x) value = static_cast<float>(rand() % 2001 - 1000) * 1e-3f;
  printf("%-8s norm 128x768 %.1f us\n", set.name, 1e6 * seconds(1, [&](int, int) {
           set.norm(x.data(), 768, y.data(), 768, gamma.data(), gamma.data(), 1e-5f, 128, 768);
         }));
}

}  // namespace
}  // namespace onnxfuse

// Of all sets but portable, or of those named.
int main(int count, char** names) {
  using namespace onnxfuse;
  const Kernels* sets[kSets];
  const int found = kernel_sets(sets);
  for (int i = 0; i < found; ++i) {
    bool wanted = count == 1 && i > 0;
    for (int n = 1; n < count; ++n) wanted = wanted || !strcmp(names[n], sets[i]->name);
    if (!wanted) continue;
    for (const Type type : {Type::kInt8, Type::kBFloat16, Type::kFloat32}) bench_products(*sets[i], type);
    bench_streams(*sets[i], Type::kInt8, 1);
    bench_streams(*sets[i], Type::kInt8, 2);
    bench_streams(*sets[i], Type::kBFloat16, 2);
    bench_rest(*sets[i]);
  }
  return 0;
}

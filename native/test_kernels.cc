// Tests every kernel of every set that this CPU runs against the portable set and against sums in double.
#include <stdio.h>
#include <string.h>

#include <chrono>

#include "compare.h"
#include "dispatch.h"
#include "selftest.h"

namespace onnxfuse {

// amx.cc with its tiles in C++ (see amx_tiles.h), for CPUs that have AVX-512 and not AMX.
const Kernels* emulated_amx_kernels();

namespace {

int passed = 0, failed = 0;

void note(const std::string& error, const std::string& what) {
  if (error.empty()) {
    ++passed;
  } else if (++failed <= 20) {
    printf("FAILED %s: %s\n", what.c_str(), error.c_str());
  }
}

std::string name_of(const ProductCase& c) {
  char text[160];
  snprintf(text, sizeof text, "product type %d M %lld K %lld N %lld act %d bias %d residual %d rows %d exact %d wild %d",
           static_cast<int>(c.type), static_cast<long long>(c.M), static_cast<long long>(c.K), static_cast<long long>(c.N),
           static_cast<int>(c.activation), c.bias, c.residual, c.rows, c.exact, c.wild);
  return text;
}

void test_products(const Kernels& set) {
  const Type types[] = {Type::kFloat32, Type::kBFloat16, Type::kInt8};
  const int64_t Ms[] = {0, 1, 2, 3, 4, 5, 6, 7, 12, 13, 31, 33, 40}, Ks[] = {1, 2, 3, 4, 30, 33, 64, 65},
                Ns[] = {1, 15, 16, 17, 63, 64, 65, 130};
  uint32_t seed = 1;
  const auto test = [&](const ProductCase& shape) { note(compare_product(set, shape), name_of(shape)); };
  for (const Type type : types) {
    for (const int64_t M : Ms)
      for (const int64_t K : Ks)
        for (const int64_t N : Ns) {
          const uint32_t i = ++seed;
          const Activation activation = i % 5 == 1 ? Activation::kGelu : i % 5 == 3 ? Activation::kGeluTanh : Activation::kNone;
          test({type, M, K, N, activation, i % 2 == 0, i % 3 == 0, i % 4 == 0, false, false, i});
          test({type, M, K, N, Activation::kNone, false, false, i % 3 == 0, true, i % 2 == 0, i});
          test({type, M, K, N, activation, i % 3 == 0, i % 2 == 0, i % 5 == 0, false, true, i});
        }
    for (const int64_t M : {1, 13, 128})
      for (const int64_t K : {768, 771})
        test({type, M, K, 200, M == 13 ? Activation::kGelu : Activation::kNone, true, M == 1, M == 128, false, M == 13,
              ++seed});
    test({type, 20, 3072, 96, Activation::kNone, false, false, false, true, true, ++seed});
  }
  for (const int64_t K : {30000, 65536})
    test({Type::kInt8, 2, K, 17, Activation::kNone, false, false, false, true, false, ++seed});
}

void test_norms(const Kernels& set) {
  uint32_t seed = 1;
  for (const int64_t M : {0, 1, 5})
    for (const int64_t N : {1, 2, 7, 8, 9, 15, 16, 17, 64, 127, 384, 768, 771})
      for (const float mean : {0.0f, 3.0f, -100.0f})
        for (const float deviation : {1.0f, 1e-3f, 1e4f, 0.0f}) {
          const uint32_t i = ++seed;
          note(compare_norm(set, {M, N, mean, deviation, i % 2 == 0, i % 3 == 0, i}), "norm of " + std::to_string(N));
        }
}

void test_attention(const Kernels& set) {
  if (!set.attention) return;
  uint32_t seed = 1;
  for (const Type type : {Type::kFloat32, Type::kBFloat16})
    for (const int64_t queries : {0, 1, 5, 16, 17, 48, 50, 100})
      for (const int64_t keys : {1, 3, 16, 65, 255, 257})
        for (const int64_t size : {1, 16, 31, 64}) {
          const uint32_t i = ++seed;
          note(compare_attention(set, {type, queries, keys, size, i % 3 ? size : size + 7, i % 2 == 0, i}),
               "attention queries " + std::to_string(queries) + " keys " + std::to_string(keys) + " size " +
                   std::to_string(size));
        }
}

void test(const Kernels& set) {
  const int before = passed;
  const auto start = std::chrono::steady_clock::now();
  note(selftest(set), "selftest");
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  test_products(set);
  test_norms(set);
  test_attention(set);
  printf("%s%s: %d passed, selftest %.1f ms\n", set.name, &set == emulated_amx_kernels() ? " emulated" : "", passed - before, ms);
  fflush(stdout);
}

}  // namespace
}  // namespace onnxfuse

// Tests all sets, or those named.
int main(int count, char** names) {
  using namespace onnxfuse;
  const Kernels* sets[kSets + 1];
  int found = kernel_sets(sets);
  if (cpu().avx512_bf16 && emulated_amx_kernels()) sets[found++] = emulated_amx_kernels();
  for (int i = 0; i < found; ++i) {
    bool wanted = count == 1;
    for (int n = 1; n < count; ++n) wanted = wanted || !strcmp(names[n], sets[i]->name);
    if (wanted) test(*sets[i]);
  }
  printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}

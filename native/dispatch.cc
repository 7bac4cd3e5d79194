#include "dispatch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace onnxfuse {
namespace {

#if defined(__x86_64__)

bool bit(unsigned word, int place) { return word >> place & 1; }

// XCR0: which registers the system saves.
uint64_t saved_registers() {
  uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<uint64_t>(high) << 32 | low;
}

// Leave from Linux to use AMX's tiles, for this process.
bool tiles_granted() {
#if defined(__linux__)
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

Cpu found() {
  Cpu cpu{};
  unsigned a, b, c, d, a1, b1, c1, d1;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return cpu;
  const bool fma = bit(c, 12), avx = bit(c, 28), saves = bit(c, 27);  // OSXSAVE
  if (!saves || !avx || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return cpu;
  const uint64_t registers = saved_registers();
  const bool ymm = (registers & 0x6) == 0x6, zmm = (registers & 0xe6) == 0xe6, tiles = (registers & 0x60000) == 0x60000;
  if (!__get_cpuid_count(7, 1, &a1, &b1, &c1, &d1)) a1 = 0;
  cpu.avx2 = ymm && fma && bit(b, 5);
  cpu.avx_vnni = cpu.avx2 && bit(a1, 4);
  cpu.avx512 = cpu.avx2 && zmm && bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31) && bit(c, 11);  // F DQ BW VL VNNI
  cpu.avx512_bf16 = cpu.avx512 && bit(a1, 5);
  cpu.amx = cpu.avx512_bf16 && tiles && bit(d, 22) && bit(d, 24) && bit(d, 25) && tiles_granted();
  return cpu;
}

#else

Cpu found() { return {}; }

#endif

// The set taken, or why there is none.
struct Taken {
  const Kernels* kernels = nullptr;
  char error[256] = "";
};

Taken taken() {
  const Kernels* sets[kSets];
  const int count = kernel_sets(sets);
  const char* wanted = getenv("ONNXFUSE_NATIVE");
  Taken result;
  if (!wanted || !*wanted) {
    result.kernels = sets[count - 1];
    return result;
  }
  char names[64] = "";
  for (int i = 0; i < count; ++i) {
    if (!strcmp(sets[i]->name, wanted)) result.kernels = sets[i];
    snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "", sets[i]->name);
  }
  if (!result.kernels)
    snprintf(result.error, sizeof result.error, "ONNXFUSE_NATIVE is \"%.32s\"; this CPU and this build have %s", wanted, names);
  return result;
}

const Taken& taken_once() {
  static const Taken result = taken();
  return result;
}

}  // namespace

const Cpu& cpu() {
  static const Cpu result = found();
  return result;
}

int kernel_sets(const Kernels* sets[kSets]) {
  int count = 0;
  const auto add = [&](bool runs, const Kernels* (*get)()) {
    const Kernels* set = runs ? get() : nullptr;
    if (set) sets[count++] = set;
  };
  add(true, portable_kernels);
  add(cpu().avx2, avx2_kernels);
  add(cpu().avx_vnni, avx_vnni_kernels);
  add(cpu().avx512, avx512_kernels);
  add(cpu().amx, amx_kernels);
  return count;
}

const Kernels* kernels() { return taken_once().kernels; }

const char* kernels_error() { return taken_once().error; }

}  // namespace onnxfuse

// Which instruction sets this CPU and system run, and the set taken.
#pragma once

#include "kernels.h"

namespace onnxfuse {

struct Cpu {
  bool avx2;         // with FMA
  bool avx_vnni;     // with avx2
  bool avx512;       // F, BW, VL, DQ and VNNI
  bool avx512_bf16;  // with avx512
  bool amx;          // AMX-TILE, AMX-INT8, AMX-BF16 and leave to use them; with avx512 and avx512_bf16
};

const Cpu& cpu();

constexpr int kSets = 5;

// Writes all sets that this build has and this CPU runs, the plainest first; returns how many.
int kernel_sets(const Kernels* sets[kSets]);

// The set taken: that of ONNXFUSE_NATIVE (portable, avx2, avx_vnni, avx512, amx), else the last of kernel_sets.
// Null where ONNXFUSE_NATIVE names none of kernel_sets: kernels_error says so.
const Kernels* kernels();

// Why `kernels` is null, or "".
const char* kernels_error();

}  // namespace onnxfuse

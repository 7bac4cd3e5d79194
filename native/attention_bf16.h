// Attention compiled for AVX512-BF16; for CPUs that have it. Absent where ONNXFUSE_NO_AVX512_BF16 is.
#pragma once

#include "kernels.h"

namespace onnxfuse {

size_t attention_bf16_bytes(Type, const Heads&);
void attention_bf16(Type, const Heads&, void* memory);

}  // namespace onnxfuse

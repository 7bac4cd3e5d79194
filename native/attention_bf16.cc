#include "attention_bf16.h"

#if defined(__AVX512F__) && !defined(ONNXFUSE_NO_AVX512_BF16)

#include "intrinsics.h"
#include "common.h"

#include "attention.h"

size_t onnxfuse::attention_bf16_bytes(Type type, const Heads& heads) { return attention::bytes(type, heads); }

void onnxfuse::attention_bf16(Type type, const Heads& heads, void* memory) { attention::run(type, heads, memory); }

#endif

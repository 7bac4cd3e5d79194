// The operators of the domain com.onnxfuse as ONNX Runtime sees them.
#pragma once

#include <vector>

#include "ort.h"

namespace onnxfuse {

constexpr const char* kDomain = "com.onnxfuse";

// Linear, Attention, Encoder; they live as long as the process. Their kernels need dispatch's `kernels()`.
const std::vector<const OrtCustomOp*>& operators();

}  // namespace onnxfuse

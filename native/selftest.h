// A look at each kernel before it is used: a compiler or a CPU at fault must not give wrong numbers.
#pragma once

#include <string>

#include "kernels.h"

namespace onnxfuse {

// Runs each kernel of a set on a few small shapes against the portable set, in some milliseconds: "" or what differs.
std::string selftest(const Kernels& set);

}  // namespace onnxfuse

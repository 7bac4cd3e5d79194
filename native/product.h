// Products on many threads: cut into blocks of rows and ranges of panels, what follows a row done behind its last column.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "kernels.h"
#include "pool.h"

namespace onnxfuse {

// What follows whole rows [begin,end): a norm, the next product's rows. Called once for each row, from any thread.
using Tail = std::function<void(int64_t begin, int64_t end)>;

// Counters that a product over `count` rows needs at most.
int64_t counters_of(int64_t count);

// y = epilogue(rows * weight) at rows [begin,end); `tail` may be empty. left: memory of counters_of(end - begin) counters.
void product(Pool& pool, const Kernels& kernels, const Rows& rows, const Weight& weight, const Epilogue& epilogue, float* y,
             int64_t y_stride, int64_t begin, int64_t end, std::atomic<int32_t>* left, const Tail& tail);

// tail over rows [0,count), cut into blocks for the threads; `width`: floats of a row that it reads.
void each_row(Pool& pool, int64_t count, int64_t width, const Tail& tail);

}  // namespace onnxfuse

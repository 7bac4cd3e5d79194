// AMX's instructions as functions; with ONNXFUSE_EMULATE_AMX the same in C++, by which tests cover what stands around them.
#pragma once

#include "common.h"

namespace onnxfuse {
namespace {
namespace tiles {

// What ldtilecfg reads: bytes a row and rows of each tile.
struct Config {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(Config) == 64, "as ldtilecfg reads it");

#ifdef ONNXFUSE_EMULATE_AMX

struct State {
  Config config;
  uint8_t data[8][16][64];
};
thread_local State state;

inline void configure(const Config& config) {
  state.config = config;
  memset(state.data, 0, sizeof state.data);
}
inline void release() { memset(&state, 0, sizeof state); }

template <int kTile>
inline void zero() {
  memset(state.data[kTile], 0, sizeof state.data[kTile]);
}

template <int kTile>
inline void load(const void* from, int64_t stride) {
  for (int r = 0; r < state.config.rows[kTile]; ++r)
    memcpy(state.data[kTile][r], static_cast<const char*>(from) + r * stride, state.config.row_bytes[kTile]);
}

template <int kTile>
inline void store(void* to, int64_t stride) {
  for (int r = 0; r < state.config.rows[kTile]; ++r)
    memcpy(static_cast<char*>(to) + r * stride, state.data[kTile][r], state.config.row_bytes[kTile]);
}

template <int kSum, int kA, int kB>
inline void dot_bytes() {
  for (int r = 0; r < state.config.rows[kSum]; ++r)
    for (int c = 0; c < 16; ++c) {
      int32_t sum;
      memcpy(&sum, state.data[kSum][r] + c * 4, 4);
      for (int k = 0; k < 64; ++k) sum += state.data[kA][r][k] * static_cast<int8_t>(state.data[kB][k / 4][c * 4 + k % 4]);
      memcpy(state.data[kSum][r] + c * 4, &sum, 4);
    }
}

template <int kSum, int kA, int kB>
inline void dot_pairs() {
  const auto half = [](const uint8_t* row, int place) {
    uint16_t value;
    memcpy(&value, row + place * 2, 2);
    return from_bfloat16(value);
  };
  for (int r = 0; r < state.config.rows[kSum]; ++r)
    for (int c = 0; c < 16; ++c) {
      float sum;
      memcpy(&sum, state.data[kSum][r] + c * 4, 4);
      for (int k = 0; k < 32; ++k) sum += half(state.data[kA][r], k) * half(state.data[kB][k / 2], c * 2 + k % 2);
      memcpy(state.data[kSum][r] + c * 4, &sum, 4);
    }
}

#else

inline void configure(const Config& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }
inline void release() { asm volatile("tilerelease"); }

template <int kTile>
inline void zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

template <int kTile>
inline void load(const void* from, int64_t stride) {
  asm volatile("tileloadd (%1,%2,1), %%tmm%c0" : : "i"(kTile), "r"(from), "r"(stride) : "memory");
}

template <int kTile>
inline void store(void* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c0, (%1,%2,1)" : : "i"(kTile), "r"(to), "r"(stride) : "memory");
}

// sum += a (u8) b (s8)
template <int kSum, int kA, int kB>
inline void dot_bytes() {
  asm volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

// sum += a b of bfloat16
template <int kSum, int kA, int kB>
inline void dot_pairs() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kSum), "i"(kA), "i"(kB));
}

#endif

}  // namespace tiles
}  // namespace
}  // namespace onnxfuse

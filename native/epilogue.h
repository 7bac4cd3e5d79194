// From a tile's sums to rows of y, on the Vector, `gelu` and Tiles that the including file has chosen (see drive.h).
#pragma once

#include "common.h"

namespace onnxfuse {
namespace {

template <Activation kActivation>
inline Vector::F activated(Vector::F x) {
  if (kActivation == Activation::kGelu) return gelu<false>(x);
  if (kActivation == Activation::kGeluTanh) return gelu<true>(x);
  return x;
}

// A finished tile: `count` rows from m on, columns from `from` on; its sums are [count][Tiles::kColumns] of int32 or float.
struct Tile {
  const void* sums;
  int64_t m, count, from;
  const void* panel;
};

constexpr int kVectors = static_cast<int>(Tiles::kColumns / Vector::kWidth);  // of a row of a tile

// The lanes of a row's vectors that are written: all where kWhole.
template <bool kWhole>
struct Lanes {
  Vector::Mask masks[kVectors];
  explicit Lanes(int64_t left) {
    for (int i = 0; i < kVectors; ++i) masks[i] = Vector::first(left <= i * Vector::kWidth ? 0 : left - i * Vector::kWidth);
  }
  template <class T>
  auto load(const T* p, int i) const {
    return Vector::load(p + i * Vector::kWidth, masks[i]);
  }
  void store(float* p, int i, Vector::F x) const { Vector::store(p + i * Vector::kWidth, x, masks[i]); }
};

template <>
struct Lanes<true> {
  explicit Lanes(int64_t) {}
  template <class T>
  auto load(const T* p, int i) const {
    return Vector::load(p + i * Vector::kWidth);
  }
  void store(float* p, int i, Vector::F x) const { Vector::store(p + i * Vector::kWidth, x); }
};

#define ONNXFUSE_EACH_VECTOR \
  _Pragma("GCC unroll 4") for (int i = 0; i < kVectors; ++i)

// Of a tile's rows the columns that lie before `to`.
template <Activation kActivation, bool kInt8, bool kWhole>
void finish_as(const Tile& tile, const Rows& rows, const Weight& weight, const Epilogue& epilogue, float* y, int64_t y_stride,
               int64_t to) {
  constexpr int64_t kWidth = Vector::kWidth;
  const Lanes<kWhole> lanes(to - tile.from);
  Vector::F bias[kVectors], scale[kVectors], v[kVectors];
  Vector::I column[kVectors];
  ONNXFUSE_EACH_VECTOR {
    bias[i] = weight.bias ? lanes.load(weight.bias + tile.from, i) : Vector::set(0.0f);
    if (kInt8) scale[i] = lanes.load(weight.scale + tile.from, i), column[i] = lanes.load(weight.sums + tile.from, i);
  }
  float* out = y + tile.m * y_stride + tile.from;
  for (int64_t r = 0; r < tile.count; ++r, out += y_stride) {
    const int64_t m = tile.m + r;
    if (kInt8) {
      const int32_t* sums = static_cast<const int32_t*>(tile.sums) + r * Tiles::kColumns;
      const Vector::I zero = Vector::set(rows.zero[m]);
      const Vector::F row_scale = Vector::set(rows.scale[m]);
      ONNXFUSE_EACH_VECTOR {
        const Vector::I centered = Vector::subtract(Vector::load(sums + i * kWidth), Vector::multiply(column[i], zero));
        v[i] = Vector::fma(Vector::multiply(Vector::to_float(centered), scale[i]), row_scale, bias[i]);
      }
      const int32_t far = rows.at[m];
      if (__builtin_expect(far >= 0, 0)) {
        const Vector::F rest = Vector::set(rows.rest[m]);
        ONNXFUSE_EACH_VECTOR {
          const Vector::F far_weight = Vector::multiply(Tiles::weight_row(tile.panel, far, i * kWidth), scale[i]);
          v[i] = Vector::fma(far_weight, rest, v[i]);
        }
      }
    } else {
      const float* sums = static_cast<const float*>(tile.sums) + r * Tiles::kColumns;
      ONNXFUSE_EACH_VECTOR { v[i] = Vector::add(Vector::load(sums + i * kWidth), bias[i]); }
    }
    ONNXFUSE_EACH_VECTOR { v[i] = activated<kActivation>(v[i]); }
    if (epilogue.residual) {
      const float* residual = epilogue.residual + m * epilogue.residual_stride + tile.from;
      ONNXFUSE_EACH_VECTOR { v[i] = Vector::add(v[i], lanes.load(residual, i)); }
    }
    ONNXFUSE_EACH_VECTOR { lanes.store(out, i, v[i]); }
  }
}

#undef ONNXFUSE_EACH_VECTOR

template <Activation kActivation, bool kInt8>
void finish_with(const Tile& tile, const Rows& rows, const Weight& weight, const Epilogue& epilogue, float* y, int64_t y_stride,
                 int64_t to) {
  if (to - tile.from >= Tiles::kColumns)
    finish_as<kActivation, kInt8, true>(tile, rows, weight, epilogue, y, y_stride, to);
  else
    finish_as<kActivation, kInt8, false>(tile, rows, weight, epilogue, y, y_stride, to);
}

// Writes a tile's columns before `to` to y.
template <bool kInt8>
void finish(const Tile& tile, const Rows& rows, const Weight& weight, const Epilogue& epilogue, float* y, int64_t y_stride,
            int64_t to) {
  switch (epilogue.activation) {
    case Activation::kNone:
      return finish_with<Activation::kNone, kInt8>(tile, rows, weight, epilogue, y, y_stride, to);
    case Activation::kGelu:
      return finish_with<Activation::kGelu, kInt8>(tile, rows, weight, epilogue, y, y_stride, to);
    case Activation::kGeluTanh:
      return finish_with<Activation::kGeluTanh, kInt8>(tile, rows, weight, epilogue, y, y_stride, to);
  }
}

}  // namespace
}  // namespace onnxfuse

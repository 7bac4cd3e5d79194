// GELU on the Vector and the pieces that the including file has chosen: gelu(x) = max(x, 0) - g(a), a = min(|x|, top),
// g(a) = -gelu(-a). g is taken from kPieces polynomials around the multiples of top / (kPieces - 1), whose terms a permutation
// picks: shorter than one polynomial of all, and permutations run beside multiplications. g(0) is 0; above top it is < 1.1e-7.
#pragma once

namespace onnxfuse {
namespace {

template <bool kTanh>
inline Vector::F gelu(Vector::F x) {
  constexpr float kTop = kTanh ? 5.2f : 5.5f, kStep = (kPieces - 1) / kTop;
  const Vector::F shift = Vector::set(12582912.0f);  // 1.5 * 2^23: its sum with a number has the nearest integer in the low bits
  const Vector::F a = Vector::min(Vector::set(kTop), Vector::magnitude(x));  // NaN stays: second operands
  const Vector::F piece = Vector::fma(a, Vector::set(kStep), shift);
  const Vector::F f = Vector::fma(a, Vector::set(kStep), Vector::subtract(shift, piece));
  Vector::F g = Vector::pick(kTanh ? kTanhTerms[kDegree] : kErfTerms[kDegree], piece);
#pragma GCC unroll 6
  for (int i = kDegree - 1; i >= 0; --i) g = Vector::fma(g, f, Vector::pick(kTanh ? kTanhTerms[i] : kErfTerms[i], piece));
  return Vector::subtract(Vector::max(Vector::set(0.0f), x), g);
}

}  // namespace
}  // namespace onnxfuse

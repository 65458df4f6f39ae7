// Mish on a contiguous array, by the widest vectors that the processor has.
//
//   Mish(x) = x tanh(softplus(x)) = x n / (n + 2),  n = e (e + 2),  e = exp(min(x, 20))
//
// No term cancels, so the result is exact to a few units in the last place wherever it is a
// normal number; above 20, n / (n + 2) rounds to 1 even in float64. Mish(+Inf) = +Inf,
// Mish(-Inf) = -Inf * 0 = NaN as in PyTorch, Mish(+-0) = +-0, Mish(NaN) = NaN.
//
// Source: Misra, Mish: A Self Regularized Non-Monotonic Activation Function (2019), equation 1.
#pragma once

#include <cstddef>

#include "half.h"

namespace dlzoo {

// y may be x itself. The half-width types are computed in float32.
void mish(const float* x, float* y, size_t count);
void mish(const double* x, double* y, size_t count);
void mish(const Float16* x, Float16* y, size_t count);
void mish(const BFloat16* x, BFloat16* y, size_t count);

// What `mish` chose for float32: "avx512", "avx2" or "baseline".
const char* mish_instructions();

}  // namespace dlzoo

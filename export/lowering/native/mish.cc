#include "mish.h"

#include <cmath>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#define DLZOO_X86 1
#else
#define DLZOO_X86 0
#endif

namespace dlzoo {
namespace {

// exp(20)^2 = 2.4e17 > 2^54: adding 2 changes nothing, in float64 either.
constexpr float kSaturation = 20.0f;
// exp(-110) = 1.7e-48 rounds to 0 in float32, whose smallest number is 1.4e-45.
constexpr float kUnderflow = -110.0f;

constexpr float kLog2E = 0x1.715476p+0f;
// ln 2 in two parts: k * kLn2High is exact for |k| < 2^9.
constexpr float kLn2High = 0x1.62e400p-1f;
constexpr float kLn2Low = 0x1.7f7d1cp-20f;
// Adding 1.5 * 2^23 leaves the nearest integer in the low bits.
constexpr float kRounder = 0x1.8p+23f;

// exp(x) for x in [kUnderflow, kSaturation]: 2^k exp(r), |r| <= ln(2) / 2, a Taylor polynomial
// of degree 7 for exp(r): its remainder is 0.3466^8 / 8! = 5e-9, a twelfth of 2^-24.
inline __attribute__((always_inline)) float exponential(float x) {
  const float shifted = x * kLog2E + kRounder;
  const float k = shifted - kRounder;
  const float r = (x - k * kLn2High) - k * kLn2Low;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * (r * r) + r;
  p = p + 1.0f;
  // 2^k by its exponent's bits, in two factors: k reaches -159, below the smallest exponent.
  const int32_t whole = static_cast<int32_t>(float_to_bits(shifted) - float_to_bits(kRounder));
  const int32_t half = whole >> 1;
  const float first = bits_to_float(static_cast<uint32_t>(half + 127) << 23);
  const float second = bits_to_float(static_cast<uint32_t>(whole - half + 127) << 23);
  return p * first * second;
}

inline __attribute__((always_inline)) void mish_loop(const float* x, float* y, size_t count) {
// The only overlap there may be is y = x, which no iteration notices.
#pragma GCC ivdep
  for (size_t i = 0; i < count; ++i) {
    const float value = x[i];
    // A NaN takes the second branch, and comes through the product.
    float bounded = value < kSaturation ? value : kSaturation;
    bounded = bounded > kUnderflow ? bounded : kUnderflow;
    const float e = exponential(bounded);
    const float n = e * (e + 2.0f);
    y[i] = value * (n / (n + 2.0f));
  }
}

using Loop = void (*)(const float*, float*, size_t);
struct Choice {
  const char* name;
  Loop loop;
};

void mish_baseline(const float* x, float* y, size_t count) { mish_loop(x, y, count); }

#if DLZOO_X86
__attribute__((target("avx2,fma"))) void mish_avx2(const float* x, float* y, size_t count) {
  mish_loop(x, y, count);
}

__attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512"))) void
mish_avx512(const float* x, float* y, size_t count) {
  mish_loop(x, y, count);
}
#endif

Choice choose() {
#if DLZOO_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return {"avx512", mish_avx512};
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return {"avx2", mish_avx2};
  }
#endif
  return {"baseline", mish_baseline};
}

const Choice kChoice = choose();

template <typename Half>
void mish_through_float(const Half* x, Half* y, size_t count) {
  constexpr size_t kBlock = 512;
  float block[kBlock];
  for (size_t begin = 0; begin < count; begin += kBlock) {
    const size_t size = count - begin < kBlock ? count - begin : kBlock;
    for (size_t i = 0; i < size; ++i) {
      block[i] = to_float(x[begin + i]);
    }
    kChoice.loop(block, block, size);
    for (size_t i = 0; i < size; ++i) {
      y[begin + i] = to_storage(block[i], Half{});
    }
  }
}

}  // namespace

void mish(const float* x, float* y, size_t count) { kChoice.loop(x, y, count); }

void mish(const double* x, double* y, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const double value = x[i];
    const double e = std::exp(value < kSaturation ? value : double{kSaturation});
    const double n = e * (e + 2.0);
    y[i] = value * (n / (n + 2.0));
  }
}

void mish(const Float16* x, Float16* y, size_t count) { mish_through_float(x, y, count); }

void mish(const BFloat16* x, BFloat16* y, size_t count) { mish_through_float(x, y, count); }

const char* mish_instructions() { return kChoice.name; }

}  // namespace dlzoo

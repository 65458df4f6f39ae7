// float16 and bfloat16 as their bits, to and from float32; to the nearest, ties to even.
#pragma once

#include <cstdint>
#include <cstring>

namespace dlzoo {

struct Float16 {
  uint16_t bits;
};

struct BFloat16 {
  uint16_t bits;
};

inline __attribute__((always_inline)) float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

inline __attribute__((always_inline)) uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

// float16 has 5 exponent bits with bias 15 and 10 fraction bits; float32 has 8, 127 and 23.
inline float to_float(Float16 half) {
  const uint32_t sign = static_cast<uint32_t>(half.bits & 0x8000u) << 16;
  const uint32_t shifted = static_cast<uint32_t>(half.bits & 0x7fffu) << 13;
  const bool is_finite = (half.bits & 0x7c00u) != 0x7c00u;
  const uint32_t magnitude =
      is_finite ? float_to_bits(bits_to_float(shifted) * 0x1p+112f) : shifted | 0x7f800000u;
  return bits_to_float(sign | magnitude);
}

inline Float16 to_storage(float value, Float16) {
  const uint32_t bits = float_to_bits(value);
  const uint32_t magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;                       // NaN
  } else if (magnitude >= 0x477ff000u) {  // 65520, half-way between 65504 and 2^16
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // 2^-14: below, one step is 2^-24, as that of 0.5
    half = float_to_bits(bits_to_float(magnitude) + 0.5f) - float_to_bits(0.5f);
  } else {
    half = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
  }
  return {static_cast<uint16_t>((bits >> 16 & 0x8000u) | half)};
}

// bfloat16 is the upper half of float32.
inline float to_float(BFloat16 half) {
  return bits_to_float(static_cast<uint32_t>(half.bits) << 16);
}

inline BFloat16 to_storage(float value, BFloat16) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return {static_cast<uint16_t>(bits >> 16 | 0x40u)};  // a NaN stays one
  }
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

}  // namespace dlzoo

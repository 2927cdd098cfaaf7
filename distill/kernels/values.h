// Values of maps, float or bfloat16, as vectors of floats: whole ones, or the first n numbers of one.
#pragma once

#include "vectors.h"

namespace {

typedef int32_t Mask __attribute__((vector_size(kWidth * 4)));
typedef uint32_t Bits __attribute__((vector_size(kWidth * 4)));
typedef uint16_t Halves __attribute__((vector_size(kWidth * 2)));

struct BFloat16 {
    uint16_t bits;
};

inline Vector load(const float* p, int n = kWidth) {
    Vector value{};
    std::memcpy(&value, p, n * sizeof(float));
    return value;
}
inline Vector load(const BFloat16* p, int n = kWidth) {
    Halves halves{};
    std::memcpy(&halves, p, n * sizeof(BFloat16));
    return as<Vector>(__builtin_convertvector(halves, Bits) << 16);
}
inline void store(float* p, Vector value, int n = kWidth) { std::memcpy(p, &value, n * sizeof(float)); }
inline void store(BFloat16* p, Vector value, int n = kWidth) {  // to the nearest, ties to even; NaN stays NaN
    const Bits bits = as<Bits>(value);
    const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const Bits kept = as<Bits>(value == value);
    const Halves halves = __builtin_convertvector((rounded & kept) | (0x7fc0u & ~kept), Halves);
    std::memcpy(p, &halves, n * sizeof(BFloat16));
}
inline Vector masked(Vector value, Mask mask) { return as<Vector>(as<Mask>(value) & mask); }
inline Vector choose(Mask mask, Vector value, Vector otherwise) {
    return as<Vector>((as<Mask>(value) & mask) | (as<Mask>(otherwise) & ~mask));
}

}  // namespace

// Vectors as wide as the processor's own: wider ones are taken apart by way of memory.
#pragma once

#include <cstdint>
#include <cstring>

namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif
typedef float Vector __attribute__((vector_size(kWidth * 4)));

inline Vector get(const float* p) {
    Vector value;
    std::memcpy(&value, p, sizeof(value));
    return value;
}
// The same bits as another type of the same size.
template <typename To, typename From>
inline To as(From from) {
    To to;
    static_assert(sizeof(to) == sizeof(from));
    std::memcpy(&to, &from, sizeof(to));
    return to;
}
inline void put(float* p, Vector value) { std::memcpy(p, &value, sizeof(value)); }

}  // namespace

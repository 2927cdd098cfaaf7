// Matrix products of a few registers' size, of operands that stay in a core's caches.
#pragma once

#include <algorithm>
#include <cstdint>

#include "vectors.h"

namespace {

constexpr int kRows = kWidth == 16 ? 12 : kWidth == 8 ? 6 : 8;  // with two vectors a row, most of the registers
constexpr int kPanel = 2 * kWidth;                               // columns that are kept in them

// out (R x V vectors) = or += a b, with a[r * row + i * step] and b[i * next + column], i < depth.
template <int R, int V>
inline void product(int64_t depth, const float* a, int64_t row, int64_t step, const float* b, int64_t next, float* out,
                    int64_t line, bool add) {
    Vector sums[R][V] = {};
    for (int64_t i = 0; i < depth; ++i) {
        Vector right[V];
        for (int v = 0; v < V; ++v) right[v] = get(b + i * next + v * kWidth);
        for (int r = 0; r < R; ++r) {
            const float left = a[r * row + i * step];
            for (int v = 0; v < V; ++v) sums[r][v] += left * right[v];
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int v = 0; v < V; ++v) {
            float* place = out + r * line + v * kWidth;
            put(place, add ? get(place) + sums[r][v] : sums[r][v]);
        }
    }
}

template <int R, int V>
inline void rows(int64_t count, int64_t depth, const float* a, int64_t row, int64_t step, const float* b, int64_t next,
                 float* out, int64_t line, bool add) {
    if (count == R) return product<R, V>(depth, a, row, step, b, next, out, line, add);
    if constexpr (R > 1) rows<R - 1, V>(count, depth, a, row, step, b, next, out, line, add);
}

// out (m x n) = or += a (m x depth) b (depth x n), with a[r * row + i * step]; b in panels of kPanel columns, or plain.
inline void multiply(int64_t m, int64_t n, int64_t depth, const float* a, int64_t row, int64_t step, const float* b,
                     bool panels, float* out, bool add) {
    for (int64_t k = 0; k < n; k += kPanel) {
        const bool whole = n - k >= kPanel;
        const float* right = panels ? b + k * depth : b + k;
        const int64_t next = !panels ? n : whole ? kPanel : n - k;
        for (int64_t r = 0; r < m; r += kRows) {
            const int64_t count = std::min<int64_t>(kRows, m - r);
            const float* left = a + r * row;
            float* place = out + r * n + k;
            if (whole)
                rows<kRows, 2>(count, depth, left, row, step, right, next, place, n, add);
            else
                rows<kRows, 1>(count, depth, left, row, step, right, next, place, n, add);
        }
    }
}

}  // namespace

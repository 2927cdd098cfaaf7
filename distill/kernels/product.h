// Matrix products of a few registers' size, of operands that stay in a core's caches.
#pragma once

#include <algorithm>
#include <cstdint>

#include "vectors.h"

namespace {

constexpr int kRows = kWidth == 16 ? 12 : kWidth == 8 ? 6 : 8;  // with two vectors a row, most of the registers
constexpr int kPanel = 2 * kWidth;                               // columns that are kept in them
constexpr int64_t kNear = 28 << 10;                              // bytes of a right matrix that is read again and again

// The left matrix, of `parts` times depth columns: element (r, p * depth + i) is data[r * row + p * jump + i * step].
struct Left {
    const float* data;
    int64_t row, step, parts = 1, jump = 0;
};

// The right one: a line of columns every `next` floats, or in panels of kPanel columns, one behind the other.
struct Right {
    const float* data;
    bool panels;
};

// What the sums start from: nothing, what is there, or numbers for the columns.
struct Start {
    bool add;
    const float* columns = nullptr;
};

// out (R x V vectors) = start + a b, with b[i * next + column].
template <int R, int V>
inline void product(int64_t depth, const Left& a, const float* b, int64_t next, Start start, float* out, int64_t line) {
    Vector sums[R][V];
    if (start.columns)  // then it goes to a map that is in no cache yet
        for (int r = 0; r < R; ++r)
            for (int v = 0; v < V; ++v) __builtin_prefetch(out + r * line + v * kWidth, 1);
    for (int v = 0; v < V; ++v) {
        const Vector from = start.columns ? get(start.columns + v * kWidth) : Vector{};
        for (int r = 0; r < R; ++r) sums[r][v] = start.add ? get(out + r * line + v * kWidth) : from;
    }
    for (int64_t part = 0; part < a.parts; ++part, b += depth * next) {
        const float* left = a.data + part * a.jump;
        for (int64_t i = 0; i < depth; ++i) {
            Vector right[V];
            for (int v = 0; v < V; ++v) right[v] = get(b + i * next + v * kWidth);
            for (int r = 0; r < R; ++r)
                for (int v = 0; v < V; ++v) sums[r][v] += left[r * a.row + i * a.step] * right[v];
        }
    }
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) put(out + r * line + v * kWidth, sums[r][v]);
}

template <int R, int V>
inline void rows(int64_t count, int64_t depth, const Left& a, const float* b, int64_t next, Start start, float* out,
                 int64_t line) {
    if (count == R) return product<R, V>(depth, a, b, next, start, out, line);
    if constexpr (R > 1) rows<R - 1, V>(count, depth, a, b, next, start, out, line);
}

// out (m x n) = start + a (m x parts * depth) b (parts * depth x n).
inline void multiply(int64_t m, int64_t n, int64_t depth, const Left& a, const Right& b, Start start, float* out) {
    const int64_t blocks = (m + kRows - 1) / kRows, panels = (n + kPanel - 1) / kPanel;
    // What is larger stays in the first cache; where both fit, out is written line after line.
    const bool lines = depth * a.parts * n * 4 <= kNear;
    for (int64_t i = 0; i < blocks * panels; ++i) {
        const int64_t block = lines ? i / panels : i % blocks, k = (lines ? i % panels : i / blocks) * kPanel;
        const int64_t r = m * block / blocks, count = m * (block + 1) / blocks - r;  // as even as can be
        const bool whole = n - k >= kPanel;
        const float* right = b.panels ? b.data + k * depth * a.parts : b.data + k;
        const int64_t next = !b.panels ? n : whole ? kPanel : n - k;
        const Left left{a.data + r * a.row, a.row, a.step, a.parts, a.jump};
        const Start columns{start.add, start.columns ? start.columns + k : nullptr};
        if (whole)
            rows<kRows, 2>(count, depth, left, right, next, columns, out + r * n + k, n);
        else
            rows<kRows, 1>(count, depth, left, right, next, columns, out + r * n + k, n);
    }
}

}  // namespace

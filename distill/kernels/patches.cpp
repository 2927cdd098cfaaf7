// 3x3 convolutions of stride 1 and padding 1 over few channels, such as a picture's, as matrix products with the
// patches under the pixels. Gradients with respect to images and weights.
//
// Maps are channels-last float: in (N, H, W, C); out (N, H, W, K), K a multiple of 16. A patch is the
// D = 9 C numbers (y, x, c) around a pixel, zero beyond the edges. Filters are given as (D, K).

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "product.h"

namespace {

constexpr int64_t kPixels = 8 * kRows;  // handled at a time; their patches stay in a core's first cache

struct Shape {
    int64_t n, h, w, c, k;
    int64_t patch() const { return 9 * c; }
    int64_t pixels() const { return n * h * w; }
};

// visit(place in the patch, first number in the image or -1 beyond its edges) for the 9 pixels of a patch.
template <typename F>
inline void around(const Shape& s, int64_t pixel, F visit) {
    const int64_t x = pixel % s.w, y = pixel / s.w % s.h;
    for (int64_t i = -1; i < 2; ++i)
        for (int64_t j = -1; j < 2; ++j) {
            const bool inside = y + i >= 0 && y + i < s.h && x + j >= 0 && x + j < s.w;
            visit(((i + 1) * 3 + j + 1) * s.c, inside ? (pixel + i * s.w + j) * s.c : -1);
        }
}

void gather(const Shape& s, const float* in, int64_t first, int64_t count, float* patches) {
    for (int64_t pixel = 0; pixel < count; ++pixel)
        around(s, first + pixel, [&](int64_t place, int64_t from) {
            float* target = patches + pixel * s.patch() + place;
            for (int64_t c = 0; c < s.c; ++c) target[c] = from < 0 ? 0.0f : in[from + c];
        });
}

void scatter(const Shape& s, const float* patches, int64_t first, int64_t count, int64_t line, float* out) {
    for (int64_t pixel = 0; pixel < count; ++pixel)
        around(s, first + pixel, [&](int64_t place, int64_t to) {
            if (to < 0) return;
            for (int64_t c = 0; c < s.c; ++c) out[to + c] += patches[pixel * line + place + c];
        });
}

// visit(first pixel, number of pixels) for blocks of those of images first..last-1.
template <typename F>
void blocks(const Shape& s, int64_t first, int64_t last, F visit) {
    for (int64_t start = first * s.h * s.w; start < last * s.h * s.w; start += kPixels)
        visit(start, std::min(kPixels, last * s.h * s.w - start));
}

}  // namespace

extern "C" {

// out = the patches of in times filters (D, K), plus bias (K) if not null.
void patches_forward(int threads, int64_t n, int64_t h, int64_t w, int64_t c, int64_t k, const float* in,
                     const float* filters, const float* bias, float* out) {
    const Shape s{n, h, w, c, k};
    parallel(n, threads, [=](int64_t first, int64_t last) {
        std::vector<float> patches(kPixels * s.patch());
        blocks(s, first, last, [&](int64_t start, int64_t count) {
            gather(s, in, start, count, patches.data());
            if (bias)
                for (int64_t pixel = start; pixel < start + count; ++pixel) std::copy(bias, bias + k, out + pixel * k);
            multiply(count, k, s.patch(), patches.data(), s.patch(), 1, filters, false, out + start * k, bias);
        });
    });
}

// out (N, H, W, C), zero before: the gradient with respect to in, of gradient (N, H, W, K) and turned (K, L), the
// filters turned over and filled up with zeros to a length L that is a multiple of 16.
void patches_backward(int threads, int64_t n, int64_t h, int64_t w, int64_t c, int64_t k, int64_t length,
                      const float* gradient, const float* turned, float* out) {
    const Shape s{n, h, w, c, k};
    parallel(n, threads, [=](int64_t first, int64_t last) {
        std::vector<float> patches(kPixels * length);
        blocks(s, first, last, [&](int64_t start, int64_t count) {
            multiply(count, length, k, gradient + start * k, k, 1, turned, false, patches.data(), false);
            scatter(s, patches.data(), start, count, length, out);
        });
    });
}

// out (D, K): the gradient with respect to the filters. On one thread, so that the sums have one order.
void patches_gradient(int64_t n, int64_t h, int64_t w, int64_t c, int64_t k, const float* in, const float* gradient,
                      float* out) {
    const Shape s{n, h, w, c, k};
    std::vector<float> patches(kPixels * s.patch());
    blocks(s, 0, n, [&](int64_t start, int64_t count) {
        gather(s, in, start, count, patches.data());
        multiply(s.patch(), k, count, patches.data(), 1, s.patch(), gradient + start * k, false, out, start > 0);
    });
}
}

// 3x3 convolutions of stride 1 and padding 1 over few channels, such as a picture's, as matrix products with the
// patches under the pixels. Gradients with respect to images and weights.
//
// Maps are channels-last float: in (N, H, W, C); out (N, H, W, K), K a multiple of 16. A patch is the 9 C numbers
// (y, x, c) around a pixel, zero beyond the edges, and a one; filters are given as (9 C + 1, K), the biases last.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "product.h"

namespace {

constexpr int64_t kPixels = 8 * kRows;  // handled at a time; their patches stay in a core's first cache

struct Shape {
    int64_t n, h, w, c, k;
    int64_t patch() const { return 9 * c + 1; }
};

// visit(place in the patch, first number in the image, how many) for each of the three rows of a patch, as far as it
// lies in the image.
template <typename F>
inline void around(const Shape& s, int64_t pixel, F visit) {
    const int64_t x = pixel % s.w, y = pixel / s.w % s.h;
    const int64_t left = x > 0 ? -1 : 0, right = x + 1 < s.w ? 2 : 1;
    for (int64_t i = y > 0 ? -1 : 0; i < (y + 1 < s.h ? 2 : 1); ++i)
        visit(((i + 1) * 3 + left + 1) * s.c, (pixel + i * s.w + left) * s.c, (right - left) * s.c);
}

void gather(const Shape& s, const float* in, int64_t first, int64_t count, float* patches) {
    for (int64_t pixel = 0; pixel < count; ++pixel) {
        float* patch = patches + pixel * s.patch();
        std::fill(patch, patch + 9 * s.c, 0.0f);
        patch[9 * s.c] = 1.0f;
        around(s, first + pixel, [&](int64_t place, int64_t from, int64_t length) {
            for (int64_t i = 0; i < length; ++i) patch[place + i] = in[from + i];
        });
    }
}

void scatter(const Shape& s, const float* patches, int64_t first, int64_t count, int64_t line, float* out) {
    for (int64_t pixel = 0; pixel < count; ++pixel)
        around(s, first + pixel, [&](int64_t place, int64_t to, int64_t length) {
            for (int64_t i = 0; i < length; ++i) out[to + i] += patches[pixel * line + place + i];
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

// out = the patches of in times filters.
void patches_forward(int threads, int64_t n, int64_t h, int64_t w, int64_t c, int64_t k, const float* in,
                     const float* filters, float* out) {
    const Shape s{n, h, w, c, k};
    parallel(n, threads, [=](int64_t first, int64_t last) {
        std::vector<float> patches(kPixels * s.patch());
        blocks(s, first, last, [&](int64_t start, int64_t count) {
            gather(s, in, start, count, patches.data());
            multiply(count, k, s.patch(), patches.data(), s.patch(), 1, filters, false, out + start * k, false);
        });
    });
}

// out (N, H, W, C), zero before: the gradient with respect to in, of gradient (N, H, W, K) and turned (K, L), the
// filters transposed and filled up with zeros to a length L that is a multiple of 16.
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

// out: the gradient with respect to the filters. On one thread, so that the sums have one order.
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

// 3x3 convolutions of stride 1 and padding 1 over few channels, such as a picture's, as matrix products with the
// patches under the pixels. Gradients with respect to images and weights.
//
// Maps are channels-last float: in (N, H, W, C); out (N, H, W, K), K a multiple of 16. A patch is the 9 C numbers
// (y, x, c) around a pixel, zero beyond the edges: three runs of 3 C numbers in an image with an edge of zeros, so
// patches are read where they lie. Filters are given as (9 C + 1, K), the biases last.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "product.h"

namespace {

constexpr int64_t kDeep = 256;  // pixels whose gradients are summed up in registers: they stay in a core's first cache

struct Shape {
    int64_t n, h, w, c, k;
    int64_t run() const { return 3 * c; }            // numbers of a patch that lie together
    int64_t line() const { return (w + 2) * c; }     // of an image with its edge
    int64_t padded() const { return (h + 2) * line(); }
    // Where a pixel's patch begins in an image with its edge.
    int64_t patch(int64_t y, int64_t x) const { return y * line() + x * c; }
};

// The pixels of an image inside an edge of zeros, which are there before.
void surround(const Shape& s, const float* image, float* padded) {
    for (int64_t y = 0; y < s.h; ++y)
        std::copy(image + y * s.w * s.c, image + (y + 1) * s.w * s.c, padded + s.patch(y + 1, 1));
}

// visit(image) for each of them, on some threads; a copy of the visitor for each thread.
template <typename F>
void images(const Shape& s, int threads, F visitor) {
    parallel(s.n, threads, [=](int64_t first, int64_t last) {
        F visit = visitor;
        for (int64_t image = first; image < last; ++image) visit(image);
    });
}

}  // namespace

extern "C" {

// out = the patches of in times filters.
void patches_forward(int threads, int64_t n, int64_t h, int64_t w, int64_t c, int64_t k, const float* in,
                     const float* filters, float* out) {
    const Shape s{n, h, w, c, k};
    const Start biases{false, filters + 9 * c * k};
    images(s, threads, [=, padded = std::vector<float>(s.padded())](int64_t image) mutable {
        surround(s, in + image * h * w * c, padded.data());
        for (int64_t y = 0; y < h; ++y)
            multiply(w, k, s.run(), Left{padded.data() + s.patch(y, 0), c, 1, 3, s.line()}, Right{filters, false},
                     biases, out + (image * h + y) * w * k);
    });
}

// out (N, H, W, C): the gradient with respect to in, of gradient (N, H, W, K) and turned (K, L), the filters
// transposed and filled up with zeros to a length L that is a multiple of 16.
void patches_backward(int threads, int64_t n, int64_t h, int64_t w, int64_t c, int64_t k, int64_t length,
                      const float* gradient, const float* turned, float* out) {
    const Shape s{n, h, w, c, k};
    std::vector<float> padded(s.padded()), patches(w * length);
    images(s, threads, [=](int64_t image) mutable {
        std::fill(padded.begin(), padded.end(), 0.0f);
        for (int64_t y = 0; y < h; ++y) {
            multiply(w, length, k, Left{gradient + (image * h + y) * w * k, k, 1}, Right{turned, false}, Start{false},
                     patches.data());
            for (int64_t x = 0; x < w; ++x)
                for (int64_t i = 0; i < 3; ++i)
                    for (int64_t j = 0; j < s.run(); ++j)
                        padded[s.patch(y + i, x) + j] += patches[x * length + i * s.run() + j];
        }
        for (int64_t y = 0; y < h; ++y) {
            const float* line = padded.data() + s.patch(y + 1, 1);
            std::copy(line, line + w * c, out + (image * h + y) * w * c);
        }
    });
}

// out (9 C, K): the gradient with respect to the filters. On one thread, so that the sums have one order.
void patches_gradient(int64_t n, int64_t h, int64_t w, int64_t c, int64_t k, const float* in, const float* gradient,
                      float* out) {
    const Shape s{n, h, w, c, k};
    const int64_t lines = std::max<int64_t>(1, kDeep / w);
    std::vector<float> padded(s.padded());
    for (int64_t image = 0; image < n; ++image) {
        surround(s, in + image * h * w * c, padded.data());
        for (int64_t y = 0; y < h; y += lines)
            for (int64_t i = 0; i < 3; ++i)
                multiply(s.run(), k, w,
                         Left{padded.data() + s.patch(y + i, 0), 1, c, std::min(lines, h - y), s.line()},
                         Right{gradient + (image * h + y) * w * k, false}, Start{image > 0 || y > 0},
                         out + i * s.run() * k);
    }
}

// out (K): the sum of gradient (pixels, K) over pixels, the gradient with respect to biases, in one order.
void bias_gradient(int threads, int64_t pixels, int64_t k, const float* gradient, float* out) {
    parallel(k / 16, threads, [=](int64_t first, int64_t last) {
        const int64_t begin = first * 16, end = last * 16;
        std::vector<float> part(k);
        std::fill(out + begin, out + end, 0.0f);
        for (int64_t start = 0; start < pixels; start += kDeep) {  // sums of sums: less rounding
            std::fill(part.begin(), part.end(), 0.0f);
            for (int64_t pixel = start; pixel < std::min(pixels, start + kDeep); ++pixel)
                for (int64_t i = begin; i < end; i += kWidth) {
                    __builtin_prefetch(gradient + (pixel + 32) * k + i, 0, 2);
                    put(part.data() + i, get(part.data() + i) + get(gradient + pixel * k + i));
                }
            for (int64_t i = begin; i < end; ++i) out[i] += part[i];
        }
    });
}
}

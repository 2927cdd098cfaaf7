// A block of the matching ConvNet behind its convolution, in one pass: instance norm, ReLU, the attention sums of
// the activated map, 2x2 average pooling. Forward, and backward with respect to the map.
//
// Maps are channels-last: element (n, y, x, c) of N x H x W x C, C a multiple of 16; T is float or bfloat16, sums
// are float. f = relu((v - mean) * rstd * weight + bias), with mean and variance over the pixels of an image and
// channel; spatial = sum_c f^p, channel = sum_yx f^q, pooled = the mean of f over 2x2 pixels.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "values.h"

namespace {

inline float total(Vector value) {
    float sum = 0.0f;
    for (int i = 0; i < kWidth; ++i) sum += value[i];
    return sum;
}

enum Power { kAbsent = 0, kOne = 1, kTwo = 2, kAny = 3 };

// f^p for f >= 0, and its derivative. 4, which papers use, without std::pow, which takes several times as long.
template <int P>
inline Vector power(Vector f, float p) {
    if (P == kTwo) return f * f;
    if (P == kAny && p == 4.0f) return (f * f) * (f * f);
    if (P == kAny)
        for (int i = 0; i < kWidth; ++i) f[i] = std::pow(f[i], p);
    return f;
}
template <int P>
inline Vector slope(Vector f, float p) {
    if (P == kOne) return Vector{} + 1.0f;
    if (P == kTwo) return f + f;
    if (p == 4.0f) return f * f * f * 4.0f;
    for (int i = 0; i < kWidth; ++i) f[i] = p * std::pow(f[i], p - 1.0f);
    return f;
}

struct Block {
    int64_t n, h, w, c;
    const float *weight, *bias;
    float eps, p, q;
    int64_t pixels() const { return h * w; }
    // The place of a pixel's 2x2 window among the pooled ones, or -1 where pooling leaves it over.
    int64_t window(int64_t y, int64_t x) const {
        return y / 2 < h / 2 && x / 2 < w / 2 ? (y / 2) * (w / 2) + x / 2 : -1;
    }
};

// Mean and 1 / deviation of each channel of one image.
template <typename T>
void measure(const Block& b, const T* image, float* mean, float* rstd) {
    const float share = 1.0f / static_cast<float>(b.pixels());
    for (int64_t c = 0; c < b.c; c += kWidth) {
        // Deviations from the first pixel: squares of small numbers do not cancel.
        const Vector origin = load(image + c);
        Vector sum{}, squares{};
        for (int64_t pixel = 1; pixel < b.pixels(); ++pixel) {
            const Vector e = load(image + pixel * b.c + c) - origin;
            sum += e;
            squares += e * e;
        }
        const Vector shift = sum * share;
        const Vector variance = (squares - sum * shift) * share;
        store(mean + c, origin + shift);
        for (int i = 0; i < kWidth; ++i)
            rstd[c + i] = 1.0f / std::sqrt((variance[i] < 0.0f ? 0.0f : variance[i]) + b.eps);
    }
}

// f = v * scale + shift before the ReLU.
inline void fold(const Block& b, const float* mean, const float* rstd, float* scale, float* shift) {
    for (int64_t c = 0; c < b.c; ++c) {
        scale[c] = rstd[c] * b.weight[c];
        shift[c] = b.bias[c] - mean[c] * scale[c];
    }
}

template <typename T, int P, int Q>
void forward(const Block& b, int64_t first, int64_t last, const T* in, T* pooled, float* spatial, float* channel,
             float* mean, float* rstd) {
    const int64_t C = b.c, windows = (b.h / 2) * (b.w / 2);
    std::vector<float> buffer(3 * C + windows * C);
    float *scale = buffer.data(), *shift = scale + C, *sums = shift + C, *pool = sums + C;
    for (int64_t n = first; n < last; ++n) {
        const T* image = in + n * b.pixels() * C;
        measure(b, image, mean + n * C, rstd + n * C);
        fold(b, mean + n * C, rstd + n * C, scale, shift);
        std::fill(sums, pool + windows * C, 0.0f);
        for (int64_t y = 0; y < b.h; ++y) {
            for (int64_t x = 0; x < b.w; ++x) {
                const int64_t pixel = y * b.w + x, window = b.window(y, x);
                Vector row{};
                for (int64_t c = 0; c < C; c += kWidth) {
                    Vector f = load(image + pixel * C + c) * load(scale + c) + load(shift + c);
                    f = masked(f, ~(f <= 0.0f));
                    if (P != kAbsent) row += power<P>(f, b.p);
                    if (Q != kAbsent) store(sums + c, load(sums + c) + power<Q>(f, b.q));
                    if (window >= 0) store(pool + window * C + c, load(pool + window * C + c) + f);
                }
                if (P != kAbsent) spatial[n * b.pixels() + pixel] = total(row);
            }
        }
        if (Q != kAbsent) std::memcpy(channel + n * C, sums, C * sizeof(float));
        for (int64_t k = 0; k < windows * C; k += kWidth)
            store(pooled + n * windows * C + k, load(pool + k) * 0.25f);
    }
}

template <typename T, int P, int Q>
void backward(const Block& b, int64_t first, int64_t last, const T* in, const float* mean, const float* rstd,
              const T* dpooled, const float* dspatial, const float* dchannel, T* out) {
    const int64_t C = b.c, windows = (b.h / 2) * (b.w / 2);
    std::vector<float> buffer(4 * C + b.pixels() * C);
    float *scale = buffer.data(), *shift = scale + C, *s1 = shift + C, *s2 = s1 + C, *d = s2 + C;
    const float share = 1.0f / static_cast<float>(b.pixels());
    for (int64_t n = first; n < last; ++n) {
        const T* image = in + n * b.pixels() * C;
        const float *m = mean + n * C, *r = rstd + n * C;
        fold(b, m, r, scale, shift);
        std::fill(s1, s2 + C, 0.0f);
        for (int64_t y = 0; y < b.h; ++y) {
            for (int64_t x = 0; x < b.w; ++x) {
                const int64_t pixel = y * b.w + x, window = b.window(y, x);
                const float gs = P != kAbsent ? dspatial[n * b.pixels() + pixel] : 0.0f;
                for (int64_t c = 0; c < C; c += kWidth) {
                    const Vector v = load(image + pixel * C + c);
                    const Vector f = v * load(scale + c) + load(shift + c);
                    Vector g{};
                    if (window >= 0) g = load(dpooled + (n * windows + window) * C + c) * 0.25f;
                    if (P != kAbsent) g += slope<P>(f, b.p) * gs;
                    if (Q != kAbsent) g += slope<Q>(f, b.q) * load(dchannel + n * C + c);
                    g = masked(g, f > 0.0f);
                    store(d + pixel * C + c, g);
                    store(s1 + c, load(s1 + c) + g);
                    store(s2 + c, load(s2 + c) + g * (v - load(m + c)));
                }
            }
        }
        // dv = rstd * weight * (d - mean(d) - zhat * mean(d * zhat)), zhat = (v - mean) * rstd.
        for (int64_t c = 0; c < C; c += kWidth) {
            const Vector rs = load(r + c);
            store(s1 + c, load(s1 + c) * share);
            store(s2 + c, load(s2 + c) * rs * rs * share);
        }
        T* target = out + n * b.pixels() * C;
        for (int64_t pixel = 0; pixel < b.pixels(); ++pixel) {
            for (int64_t c = 0; c < C; c += kWidth) {
                const Vector deviation = load(image + pixel * C + c) - load(m + c);
                const Vector g = load(d + pixel * C + c) - load(s1 + c) - deviation * load(s2 + c);
                store(target + pixel * C + c, g * load(scale + c));
            }
        }
    }
}

// Images are independent, so their shares among threads change no bit.
template <typename T, int P, int Q>
void forward_parallel(const Block& b, int threads, const void* in, void* pooled, float* spatial, float* channel,
                      float* mean, float* rstd) {
    parallel(b.n, threads, [=](int64_t first, int64_t last) {
        forward<T, P, Q>(b, first, last, static_cast<const T*>(in), static_cast<T*>(pooled), spatial, channel, mean,
                         rstd);
    });
}

template <typename T, int P, int Q>
void backward_parallel(const Block& b, int threads, const void* in, const float* mean, const float* rstd,
                       const void* dpooled, const float* dspatial, const float* dchannel, void* out) {
    parallel(b.n, threads, [=](int64_t first, int64_t last) {
        backward<T, P, Q>(b, first, last, static_cast<const T*>(in), mean, rstd, static_cast<const T*>(dpooled),
                          dspatial, dchannel, static_cast<T*>(out));
    });
}

int kind(const float* sums, float p) { return !sums ? kAbsent : p == 1.0f ? kOne : p == 2.0f ? kTwo : kAny; }

// Calls run(P, Q) with the two kinds as constants of compile time.
template <int P, typename F>
void with_channel_kind(int q, F run) {
    using Constant = std::integral_constant<int, P>;
    if (q == kAbsent) return run(Constant{}, std::integral_constant<int, kAbsent>{});
    if (q == kOne) return run(Constant{}, std::integral_constant<int, kOne>{});
    if (q == kTwo) return run(Constant{}, std::integral_constant<int, kTwo>{});
    run(Constant{}, std::integral_constant<int, kAny>{});
}
template <typename F>
void with_kinds(int p, int q, F run) {
    if (p == kAbsent) return with_channel_kind<kAbsent>(q, run);
    if (p == kOne) return with_channel_kind<kOne>(q, run);
    if (p == kTwo) return with_channel_kind<kTwo>(q, run);
    with_channel_kind<kAny>(q, run);
}

}  // namespace

extern "C" {

// pooled (N, h/2, w/2, C); spatial (N, H*W) and channel (N, C) or null; mean and rstd (N, C) for the way back.
void attention_forward(int half, int threads, int64_t n, int64_t h, int64_t w, int64_t c, float eps, float p,
                       float q, const void* in, const float* weight, const float* bias, void* pooled,
                       float* spatial, float* channel, float* mean, float* rstd) {
    const Block b{n, h, w, c, weight, bias, eps, p, q};
    with_kinds(kind(spatial, p), kind(channel, q), [&](auto P, auto Q) {
        const auto run = half ? forward_parallel<BFloat16, P(), Q()> : forward_parallel<float, P(), Q()>;
        run(b, threads, in, pooled, spatial, channel, mean, rstd);
    });
}

// out (N, H, W, C): the gradient with respect to the map, from those with respect to what forward gave.
void attention_backward(int half, int threads, int64_t n, int64_t h, int64_t w, int64_t c, float eps, float p,
                        float q, const void* in, const float* weight, const float* bias, const float* mean,
                        const float* rstd, const void* dpooled, const float* dspatial, const float* dchannel,
                        void* out) {
    const Block b{n, h, w, c, weight, bias, eps, p, q};
    with_kinds(kind(dspatial, p), kind(dchannel, q), [&](auto P, auto Q) {
        const auto run = half ? backward_parallel<BFloat16, P(), Q()> : backward_parallel<float, P(), Q()>;
        run(b, threads, in, mean, rstd, dpooled, dspatial, dchannel, out);
    });
}
}

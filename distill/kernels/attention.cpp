// A block of the matching ConvNet behind its convolution, in one pass: instance norm, ReLU, the attention sums of
// the activated map, 2x2 average pooling. Forward, and backward with respect to the map.
//
// Maps are channels-last: element (n, y, x, c) of N x H x W x C, C a multiple of 16; T is float or bfloat16, sums
// are float. f = relu((v - mean) * rstd * weight + bias), with mean and variance over the pixels of an image and
// channel; spatial = sum_c f^p, channel = sum_yx f^q, pooled = the mean of f over 2x2 pixels.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "parallel.h"
#include "values.h"

namespace {

inline float total(Vector value) {
    float sum = 0.0f;
    for (int i = 0; i < kWidth; ++i) sum += value[i];
    return sum;
}

constexpr int kGroup = 128 / kWidth;  // vectors of channels taken together: a whole pixel of the usual ConvNet

enum Power { kAbsent = 0, kOne = 1, kTwo = 2, kFour = 4, kAny = 5 };

// f^p for f >= 0, and its derivative. Those that papers use without std::pow, which takes several times as long.
template <int P>
inline Vector power(Vector f, float p) {
    if (P == kTwo) return f * f;
    if (P == kFour) return (f * f) * (f * f);
    if (P == kAny)
        for (int i = 0; i < kWidth; ++i) f[i] = std::pow(f[i], p);
    return f;
}
template <int P>
inline Vector slope(Vector f, float p) {
    if (P == kOne) return Vector{} + 1.0f;
    if (P == kTwo) return f + f;
    if (P == kFour) return f * f * f * 4.0f;
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

// Calls run(channel, G) for G vectors of channels at a time, as a constant of compile time, until all are done.
template <typename F>
inline void by_vectors(int64_t channels, F run) {
    int64_t c = 0;
    for (; c + kGroup * kWidth <= channels; c += kGroup * kWidth) run(c, std::integral_constant<int, kGroup>{});
    for (; c < channels; c += kWidth) run(c, std::integral_constant<int, 1>{});
}

// Mean and 1 / deviation of each channel of one image: row by row about the mean of the rows above, the first about its
// own, put together as Chan, Golub and LeVeque (1983) do. So next to nothing cancels, whatever pixel is far from the
// rest: a border beside padding is. The mean is center + rest, or rows would round it one after the other.
template <typename T>
void measure(const Block& b, const T* image, float* mean, float* rstd) {
    const float width = static_cast<float>(b.w), share = 1.0f / static_cast<float>(b.pixels());
    by_vectors(b.c, [&](int64_t c, auto G) {
        Vector center[G()]{}, rest[G()]{}, squares[G()]{};
        for (int64_t x = 0; x < b.w; ++x)
            for (int k = 0; k < G(); ++k) center[k] += load(image + x * b.c + c + k * kWidth) * (1.0f / width);
        for (int64_t y = 0; y < b.h; ++y) {
            const T* row = image + y * b.w * b.c + c;
            Vector sum[G()]{}, within[G()]{};
            for (int64_t x = 0; x < b.w; ++x) {
                for (int k = 0; k < G(); ++k) {
                    const Vector e = load(row + x * b.c + k * kWidth) - center[k];
                    sum[k] += e;
                    within[k] += e * e;
                }
            }
            const float before = static_cast<float>(y), part = 1.0f / (before + 1.0f);
            for (int k = 0; k < G(); ++k) {
                const Vector shift = sum[k] * (1.0f / width), off = shift - rest[k];
                squares[k] += within[k] - sum[k] * shift + off * off * (width * before * part);
                rest[k] += off * part;
                const Vector moved = center[k] + rest[k];
                rest[k] -= moved - center[k];
                center[k] = moved;
            }
        }
        for (int k = 0; k < G(); ++k) {
            const int64_t channel = c + k * kWidth;
            store(mean + channel, center[k] + rest[k]);
            for (int i = 0; i < kWidth; ++i) {
                const float variance = squares[k][i] * share;
                rstd[channel + i] = 1.0f / std::sqrt((variance < 0.0f ? 0.0f : variance) + b.eps);
            }
        }
    });
}

// f = v * scale + shift before the ReLU.
inline void fold(const Block& b, const float* mean, const float* rstd, float* scale, float* shift) {
    for (int64_t c = 0; c < b.c; ++c) {
        scale[c] = rstd[c] * b.weight[c];
        shift[c] = b.bias[c] - mean[c] * scale[c];
    }
}

// Pixels (y..y+S, x..x+S) of an image: sums, and where there are four of them the mean for pooling.
template <typename T, int P, int Q, int S>
inline void activate(const Block& b, const T* image, int64_t y, int64_t x, const float* scale, const float* shift,
                     T* pooled, float* spatial, float* sums) {
    Vector rows[S * S]{};
    for (int64_t c = 0; c < b.c; c += kWidth) {
        const Vector times = load(scale + c), plus = load(shift + c);
        Vector sum{}, powers{};
        for (int i = 0; i < S * S; ++i) {
            Vector f = load(image + ((y + i / S) * b.w + x + i % S) * b.c + c) * times + plus;
            f = masked(f, ~(f <= 0.0f));
            sum += f;
            if (P != kAbsent) rows[i] += power<P>(f, b.p);
            if (Q != kAbsent) powers += power<Q>(f, b.q);
        }
        if (Q != kAbsent) store(sums + c, load(sums + c) + powers);
        if (S == 2) store(pooled + b.window(y, x) * b.c + c, sum * 0.25f);
    }
    if (P != kAbsent)
        for (int i = 0; i < S * S; ++i) spatial[(y + i / S) * b.w + x + i % S] = total(rows[i]);
}

template <typename T, int P, int Q>
void forward(const Block& b, int64_t first, int64_t last, const T* in, T* pooled, float* spatial, float* channel,
             float* mean, float* rstd) {
    const int64_t C = b.c, windows = (b.h / 2) * (b.w / 2);
    std::vector<float> buffer(3 * C);
    float *scale = buffer.data(), *shift = scale + C, *sums = shift + C;
    for (int64_t n = first; n < last; ++n) {
        const T* image = in + n * b.pixels() * C;
        T* pool = pooled + n * windows * C;
        float* rows = P != kAbsent ? spatial + n * b.pixels() : nullptr;
        measure(b, image, mean + n * C, rstd + n * C);
        fold(b, mean + n * C, rstd + n * C, scale, shift);
        std::fill(sums, sums + C, 0.0f);
        for (int64_t y = 0; y < b.h; y += 2) {
            for (int64_t x = 0; x < b.w; x += 2) {
                if (b.window(y, x) >= 0) {
                    activate<T, P, Q, 2>(b, image, y, x, scale, shift, pool, rows, sums);
                    continue;
                }
                for (int64_t i = y; i < std::min(y + 2, b.h); ++i)
                    for (int64_t j = x; j < std::min(x + 2, b.w); ++j)
                        activate<T, P, Q, 1>(b, image, i, j, scale, shift, pool, rows, sums);
            }
        }
        if (Q != kAbsent) std::memcpy(channel + n * C, sums, C * sizeof(float));
    }
}

// Gradients with respect to one image's map: G vectors of channels, from the first one's. Twice over the pixels, since
// sums over all of them are needed for each; what they are sums of costs less to compute again than to keep.
template <typename T, int P, int Q, int G>
void back(const Block& b, int64_t first, const T* image, const float* mean, const float* rstd, const float* scale,
          const float* shift, const T* dpooled, const float* dspatial, const float* dchannel, T* out) {
    const float share = 1.0f / static_cast<float>(b.pixels());
    Vector m[G], times[G], plus[G], dc[G], s1[G], s2[G];
    for (int k = 0; k < G; ++k) {
        const int64_t c = first + k * kWidth;
        m[k] = load(mean + c), times[k] = load(scale + c), plus[k] = load(shift + c);
        dc[k] = Q != kAbsent ? load(dchannel + c) : Vector{};
        s1[k] = s2[k] = Vector{};
    }
    // visit(pixel's place in the map, k, v, d): values of the map, gradients behind the ReLU.
    const auto each = [&](auto visit) {
        for (int64_t y = 0; y < b.h; ++y) {
            for (int64_t x = 0; x < b.w; ++x) {
                const int64_t pixel = y * b.w + x, window = b.window(y, x);
                const float gs = P != kAbsent ? dspatial[pixel] : 0.0f;
                for (int k = 0; k < G; ++k) {
                    const int64_t c = first + k * kWidth, place = pixel * b.c + c;
                    const Vector v = load(image + place);
                    const Vector f = v * times[k] + plus[k];
                    Vector g{};
                    if (window >= 0) g = load(dpooled + window * b.c + c) * 0.25f;
                    if (P != kAbsent) g += slope<P>(f, b.p) * gs;
                    if (Q != kAbsent) g += slope<Q>(f, b.q) * dc[k];
                    visit(place, k, v, masked(g, f > 0.0f));
                }
            }
        }
    };
    each([&](int64_t, int k, Vector v, Vector d) {
        s1[k] += d;
        s2[k] += d * (v - m[k]);
    });
    // dv = rstd * weight * (d - mean(d) - zhat * mean(d * zhat)), zhat = (v - mean) * rstd.
    for (int k = 0; k < G; ++k) {
        const Vector rs = load(rstd + first + k * kWidth);
        s1[k] *= share;
        s2[k] *= rs * rs * share;
    }
    each([&](int64_t place, int k, Vector v, Vector d) {
        store(out + place, (d - s1[k] - (v - m[k]) * s2[k]) * times[k]);
    });
}

template <typename T, int P, int Q>
void backward(const Block& b, int64_t first, int64_t last, const T* in, const float* mean, const float* rstd,
              const T* dpooled, const float* dspatial, const float* dchannel, T* out) {
    const int64_t C = b.c, size = b.pixels() * C, windows = (b.h / 2) * (b.w / 2);
    std::vector<float> buffer(2 * C);
    float *scale = buffer.data(), *shift = scale + C;
    for (int64_t n = first; n < last; ++n) {
        const float *m = mean + n * C, *r = rstd + n * C;
        const float* rows = P != kAbsent ? dspatial + n * b.pixels() : nullptr;
        const float* columns = Q != kAbsent ? dchannel + n * C : nullptr;
        fold(b, m, r, scale, shift);
        by_vectors(C, [&](int64_t c, auto G) {
            back<T, P, Q, G()>(b, c, in + n * size, m, r, scale, shift, dpooled + n * windows * C, rows, columns,
                               out + n * size);
        });
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

int kind(const float* sums, float p) {
    return !sums ? kAbsent : p == 1.0f ? kOne : p == 2.0f ? kTwo : p == 4.0f ? kFour : kAny;
}

// Calls run(P, Q) with the two kinds as constants of compile time. Two different ones both become kAny, which is slower:
// papers do not mix them, and each pair takes its time to compile.
template <int K, typename F>
void with_kind(bool spatial, bool channel, F run) {
    using Absent = std::integral_constant<int, kAbsent>;
    using Kind = std::integral_constant<int, K>;
    if (!channel) return run(Kind{}, Absent{});
    if (!spatial) return run(Absent{}, Kind{});
    run(Kind{}, Kind{});
}
template <typename F>
void with_kinds(int p, int q, F run) {
    const int common = p == q || q == kAbsent ? p : p == kAbsent ? q : kAny;
    if (common == kAbsent) return run(std::integral_constant<int, kAbsent>{}, std::integral_constant<int, kAbsent>{});
    if (common == kOne) return with_kind<kOne>(p, q, run);
    if (common == kTwo) return with_kind<kTwo>(p, q, run);
    if (common == kFour) return with_kind<kFour>(p, q, run);
    with_kind<kAny>(p, q, run);
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

// What follows a convolution, in one pass: normalise, activate, pool. Forward, backward and statistics.
//
// Maps are channels-last: element (n, y, x, c) of N x H x W x C; T is float or bfloat16, sums are float.
// z = (v * scale + shift) * gain + offset, out = pool(act(z)), where scale and shift are (N, C) or null (v as it
// is), gain and offset (H, W, C) or null.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "parallel.h"
#include "values.h"

namespace {

constexpr int64_t kFewest = 1 << 16;  // values a thread: with fewer, starting it costs more than it saves

// exp by 2^n * 2^f with a polynomial for 2^f, |f| <= 1/2; relative error about 2e-7.
inline Vector exponential(Vector x) {
    x = choose(x < -87.0f, Vector{} - 87.0f, choose(x > 88.0f, Vector{} + 88.0f, x));
    const Vector t = x * 1.44269504f;
    const Vector whole = (t + 12582912.0f) - 12582912.0f;
    const Vector f = t - whole;
    Vector p = Vector{} + 1.54034e-4f;
    p = p * f + 1.333356e-3f;
    p = p * f + 9.618129e-3f;
    p = p * f + 5.550411e-2f;
    p = p * f + 2.402265e-1f;
    p = p * f + 6.931472e-1f;
    p = p * f + 1.0f;
    return p * as<Vector>((__builtin_convertvector(whole, Mask) + 127) << 23);
}

enum Activation { kIdentity = 0, kLeaky = 1, kSigmoid = 2 };  // ReLU is leaky with slope 0
enum Pooling { kNone = 0, kMax = 1, kAverage = 2 };

template <int A>
inline Vector activate(Vector z, float slope) {
    if (A == kLeaky) return choose(z > 0.0f, z, z * slope);
    if (A == kSigmoid) return 1.0f / (1.0f + exponential(-z));
    return z;
}
template <int A>
inline Vector derivative(Vector z, float slope) {
    if (A == kLeaky) return choose(z > 0.0f, Vector{} + 1.0f, Vector{} + slope);
    if (A == kSigmoid) {
        const Vector s = activate<kSigmoid>(z, slope);
        return s * (1.0f - s);
    }
    return Vector{} + 1.0f;
}

// visit(first channel, how many) for vectors of channels; the number of whole ones is known when compiling.
template <typename F>
inline void channels(int64_t count, F visit) {
    int64_t c = 0;
    for (; c + kWidth <= count; c += kWidth) visit(c, std::integral_constant<int, kWidth>());
    if (c < count) visit(c, static_cast<int>(count - c));
}

struct Maps {
    int64_t n, h, w, c;
    const float *scale, *shift, *gain, *offset;
    float slope;
    int64_t pixels() const { return h * w; }
};

// What a few channels of one image are normalised with.
struct Norm {
    Vector scale{}, shift{};
    const float *gain, *offset;
    bool scaled;
    int n;
    int64_t line;

    Norm(const Maps& m, int64_t image, int64_t c, int n)
        : gain(m.gain ? m.gain + c : nullptr), offset(m.offset + c), scaled(m.scale != nullptr), n(n), line(m.c) {
        if (!scaled) return;
        scale = load(m.scale + image * m.c + c, n);
        shift = load(m.shift + image * m.c + c, n);
    }
    Vector scales(Vector v) const { return scaled ? v * scale + shift : v; }
    Vector gains(int64_t pixel) const { return load(gain + pixel * line, n); }
    Vector operator()(Vector v, int64_t pixel) const {
        return gain ? scales(v) * gains(pixel) + load(offset + pixel * line, n) : scales(v);
    }
};

template <typename T, int A, int P>
void forward(const Maps& m, int64_t first, int64_t last, const T* in, T* out) {
    const int64_t C = m.c, W = m.w, step = P == kNone ? 1 : 2, h = m.h / step, w = W / step;
    for (int64_t image = first; image < last; ++image) {
        const T* values = in + image * m.pixels() * C;
        T* target = out + image * h * w * C;
        for (int64_t y = 0; y < h; ++y)
            for (int64_t x = 0; x < w; ++x)
                channels(C, [&](int64_t c, auto n) {
                    const Norm norm(m, image, c, n);
                    Vector best{};
                    for (int part = 0; part < step * step; ++part) {
                        const int64_t pixel = (step * y + part / 2) * W + step * x + part % 2;
                        const Vector a = activate<A>(norm(load(values + pixel * C + c, n), pixel), m.slope);
                        if (part == 0)
                            best = a;
                        else if (P == kMax)
                            best = choose((a > best) | (a != a), a, best);
                        else
                            best += a;
                    }
                    store(target + (y * w + x) * C + c, P == kAverage ? best * 0.25f : best, n);
                });
    }
}

// Where gradients are added up.
struct Gradients {
    float *sums1, *sums2, *gain, *offset;
};

template <typename T, int A, int P>
void backward(const Maps& m, int64_t first, int64_t last, const T* in, const T* gradient, T* dz, const Gradients& g) {
    const int64_t C = m.c, W = m.w, step = P == kNone ? 1 : 2, h = m.h / step, w = W / step;
    constexpr int kParts = P == kNone ? 1 : 4;
    for (int64_t image = first; image < last; ++image) {
        const T* values = in + image * m.pixels() * C;
        const T* arriving = gradient + image * h * w * C;
        T* target = dz + image * m.pixels() * C;
        for (int64_t y = 0; y < h; ++y)
            for (int64_t x = 0; x < w; ++x)
                channels(C, [&](int64_t c, auto n) {
                    const Norm norm(m, image, c, n);
                    const Vector share = load(arriving + (y * w + x) * C + c, n) * (P == kAverage ? 0.25f : 1.0f);
                    Vector v[kParts], z[kParts], sum1{}, sum2{}, best{};
                    Mask won[kParts];
                    for (int part = 0; part < kParts; ++part) {
                        const int64_t pixel = (step * y + part / 2) * W + step * x + part % 2;
                        v[part] = load(values + pixel * C + c, n);
                        z[part] = norm(v[part], pixel);
                        if (P != kMax) continue;
                        const Vector a = activate<A>(z[part], m.slope);
                        won[part] = part == 0 ? ~Mask{} : (a > best) | (a != a);
                        best = choose(won[part], a, best);
                    }
                    Mask open = ~Mask{};
                    for (int part = kParts - 1; part >= 0; --part) {
                        const int64_t pixel = (step * y + part / 2) * W + step * x + part % 2;
                        Vector d = share * derivative<A>(z[part], m.slope);
                        if (P == kMax) {  // to the last that was higher than all before
                            d = masked(d, won[part] & open);
                            open &= ~won[part];
                        }
                        if (m.gain) {
                            const int64_t place = pixel * C + c;
                            store(g.gain + place, load(g.gain + place, n) + d * norm.scales(v[part]), n);
                            store(g.offset + place, load(g.offset + place, n) + d, n);
                            d *= norm.gains(pixel);
                        }
                        sum1 += d;
                        sum2 += d * v[part];
                        store(target + pixel * C + c, d, n);
                    }
                    if (!g.sums1) return;
                    const int64_t place = image * C + c;
                    store(g.sums1 + place, load(g.sums1 + place, n) + sum1, n);
                    store(g.sums2 + place, load(g.sums2 + place, n) + sum2, n);
                });
        // Rows and columns that pooling leaves over get no gradient.
        for (int64_t y = 0; y < m.h; ++y)
            for (int64_t x = 0; x < W; ++x)
                if (y >= step * h || x >= step * w)
                    channels(C, [&](int64_t c, auto n) { store(target + (y * W + x) * C + c, Vector{}, n); });
    }
}

template <typename T>
void statistics(int64_t first, int64_t last, int64_t pixels, int64_t C, const T* in, float* mean, float* squares) {
    const float share = 1.0f / static_cast<float>(pixels);
    for (int64_t image = first; image < last; ++image) {
        const T* values = in + image * pixels * C;
        float *s = mean + image * C, *q = squares + image * C;
        std::fill(s, s + C, 0.0f);
        std::fill(q, q + C, 0.0f);
        // Deviations from the first pixel: squares of small numbers do not cancel.
        for (int64_t pixel = 1; pixel < pixels; ++pixel)
            channels(C, [&](int64_t c, auto n) {
                const Vector e = load(values + pixel * C + c, n) - load(values + c, n);
                store(s + c, load(s + c, n) + e, n);
                store(q + c, load(q + c, n) + e * e, n);
            });
        channels(C, [&](int64_t c, auto n) {
            const Vector sum = load(s + c, n), shift = sum * share, rest = load(q + c, n) - sum * shift;
            store(q + c, masked(rest, ~(rest <= 0.0f)), n);
            store(s + c, load(values + c, n) + shift, n);
        });
    }
}

template <typename T>
void combine(int64_t first, int64_t last, int64_t pixels, int64_t C, const T* in, T* dz, const float* a,
             const float* b, const float* k) {
    for (int64_t image = first; image < last; ++image)
        for (int64_t pixel = 0; pixel < pixels; ++pixel)
            channels(C, [&](int64_t c, auto n) {
                const int64_t own = image * C + c, place = (image * pixels + pixel) * C + c;
                const Vector d = load(dz + place, n) * load(a + own, n) + load(in + place, n) * load(b + own, n);
                store(dz + place, d + load(k + own, n), n);
            });
}

// work(first, last) for shares of the images of n x size values on up to `threads` threads.
template <typename F>
void share(int64_t n, int64_t size, int threads, F work) {
    parallel(n, static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, n * size / kFewest))), work);
}

// visit(activation, pooling), as constants.
template <int A, typename F>
void with_pooling(int pooling, F visit) {
    constexpr std::integral_constant<int, A> activation;
    if (pooling == kMax) return visit(activation, std::integral_constant<int, kMax>());
    if (pooling == kAverage) return visit(activation, std::integral_constant<int, kAverage>());
    visit(activation, std::integral_constant<int, kNone>());
}
template <typename F>
void with_form(int activation, int pooling, F visit) {
    if (activation == kLeaky) return with_pooling<kLeaky>(pooling, visit);
    if (activation == kSigmoid) return with_pooling<kSigmoid>(pooling, visit);
    with_pooling<kIdentity>(pooling, visit);
}

template <typename T>
void forward_any(int activation, int pooling, int threads, const Maps& m, const void* in, void* out) {
    share(m.n, m.pixels() * m.c, threads, [=](int64_t first, int64_t last) {
        with_form(activation, pooling, [=](auto a, auto p) {
            forward<T, a, p>(m, first, last, static_cast<const T*>(in), static_cast<T*>(out));
        });
    });
}

// On one thread where images add to the same sums, so that these have one order.
template <typename T>
void backward_any(int activation, int pooling, int threads, const Maps& m, const void* in, const void* gradient,
                  void* dz, const Gradients& g) {
    share(m.n, m.pixels() * m.c, m.gain ? 1 : threads, [=](int64_t first, int64_t last) {
        with_form(activation, pooling, [=](auto a, auto p) {
            backward<T, a, p>(m, first, last, static_cast<const T*>(in), static_cast<const T*>(gradient),
                              static_cast<T*>(dz), g);
        });
    });
}

}  // namespace

extern "C" {

void tail_forward(int half, int activation, int pooling, int threads, float slope, int64_t n, int64_t h, int64_t w,
                  int64_t c, const void* in, const float* scale, const float* shift, const float* gain,
                  const float* offset, void* out) {
    const Maps m{n, h, w, c, scale, shift, gain, offset, slope};
    if (half) return forward_any<BFloat16>(activation, pooling, threads, m, in, out);
    forward_any<float>(activation, pooling, threads, m, in, out);
}

// sums1, sums2 (N, C): of dz and dz * v over the pixels of an image; dgain, doffset (H, W, C): added to.
void tail_backward(int half, int activation, int pooling, int threads, float slope, int64_t n, int64_t h, int64_t w,
                   int64_t c, const void* in, const float* scale, const float* shift, const float* gain,
                   const float* offset, const void* gradient, void* dz, float* sums1, float* sums2, float* dgain,
                   float* doffset) {
    const Maps m{n, h, w, c, scale, shift, gain, offset, slope};
    const Gradients s{sums1, sums2, dgain, doffset};
    if (half) return backward_any<BFloat16>(activation, pooling, threads, m, in, gradient, dz, s);
    backward_any<float>(activation, pooling, threads, m, in, gradient, dz, s);
}

// mean and the sum of squared deviations from it, of each image and channel: (N, C).
void tail_statistics(int half, int threads, int64_t n, int64_t pixels, int64_t c, const void* in, float* mean,
                     float* squares) {
    share(n, pixels * c, threads, [=](int64_t first, int64_t last) {
        if (half) return statistics(first, last, pixels, c, static_cast<const BFloat16*>(in), mean, squares);
        statistics(first, last, pixels, c, static_cast<const float*>(in), mean, squares);
    });
}

// dz := dz * a + v * b + k, with a, b, k (N, C).
void tail_combine(int half, int threads, int64_t n, int64_t pixels, int64_t c, const void* in, void* dz,
                  const float* a, const float* b, const float* k) {
    share(n, pixels * c, threads, [=](int64_t first, int64_t last) {
        if (half)
            return combine(first, last, pixels, c, static_cast<const BFloat16*>(in), static_cast<BFloat16*>(dz), a, b,
                           k);
        combine(first, last, pixels, c, static_cast<const float*>(in), static_cast<float*>(dz), a, b, k);
    });
}
}

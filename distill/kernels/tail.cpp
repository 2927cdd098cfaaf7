// What follows a convolution, in one pass: normalise, activate, pool. Forward, backward and statistics.
//
// Maps are channels-last: element (n, y, x, c) of N x H x W x C; T is float or bfloat16, sums are float.
// z = (v * scale + shift) * gain + offset, out = pool(act(z)), where scale and shift are (N, C) or null (v as it
// is), gain and offset (H, W, C) or null.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

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
    if (A == kLeaky) return choose(z > 0.0f, z, slope == 0.0f ? masked(z, z != z) : z * slope);  // -inf too
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

// What will be read, or written, some rows later is fetched into the second cache: processors do not foresee it.
constexpr int64_t kRowsAhead = 4, kFarther = 1024;
constexpr int64_t kDeep = 64;  // pixels that are added up before they are added to others
template <typename T>
inline void will_read(const T* place) { __builtin_prefetch(place, 0, 2); }
template <typename T>
inline void will_write(const T* place) { __builtin_prefetch(place, 1, 2); }

template <typename T, int A, int P>
void forward(const Maps& m, int64_t image, const T* in, T* out) {
    const int64_t C = m.c, W = m.w, step = P == kNone ? 1 : 2, h = m.h / step, w = W / step;
    const T* values = in + image * m.pixels() * C;
    T* target = out + image * h * w * C;
    for (int64_t y = 0; y < h; ++y)
        for (int64_t x = 0; x < w; ++x)
            channels(C, [&](int64_t c, auto n) {
                const Norm norm(m, image, c, n);
                Vector best{};
                for (int part = 0; part < step * step; ++part) {
                    const int64_t pixel = (step * y + part / 2) * W + step * x + part % 2;
                    will_read(values + (pixel + kRowsAhead * W) * C + c);
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

// Where gradients are added up: sums of dz and dz * (v - mean) over an image's pixels, (C); gain and offset (H, W, C).
struct Sums {
    float *first, *second, *gain, *offset;
};
// The maps' gradient is dz * a + (v - mean) * b + k, with an image's (C) numbers. Of a mean that is large beside the
// deviation, sums and products of v itself would leave little.
struct Rule {
    const float *a, *b, *k, *mean;
};
// What a pass over an image does: write dz, add up sums, or write the maps' gradient.
enum Pass { kPlain, kSum, kMake };

template <typename T, int A, int P, int kPass>
void backward(const Maps& m, int64_t image, const T* in, const T* gradient, T* made, const Sums& sums,
              const Rule& rule) {
    const int64_t C = m.c, W = m.w, step = P == kNone ? 1 : 2, h = m.h / step, w = W / step;
    constexpr int kParts = P == kNone ? 1 : 4;
    const T* values = in + image * m.pixels() * C;
    const T* arriving = gradient + image * h * w * C;
    T* target = made + image * m.pixels() * C;
    // Rows and columns that pooling leaves over get no dz.
    const auto leave = [&](int64_t pixel) {
        channels(C, [&](int64_t c, auto n) {
            const int64_t place = pixel * C + c;
            if (kPass == kMake) {
                const Vector apart = load(values + place, n) - load(rule.mean + c, n);
                store(target + place, apart * load(rule.b + c, n) + load(rule.k + c, n), n);
            } else
                store(target + place, Vector{}, n);
        });
    };
    std::vector<float> row(kPass == kSum ? 2 * C : 0);  // sums of sums: less rounding
    for (int64_t y = 0; y < h; ++y) {
        std::fill(row.begin(), row.end(), 0.0f);
        for (int64_t x = 0; x < w; ++x)
            channels(C, [&](int64_t c, auto n) {
                const Norm norm(m, image, c, n);
                const Vector share = load(arriving + (y * w + x) * C + c, n) * (P == kAverage ? 0.25f : 1.0f);
                const Vector mean = kPass == kPlain ? Vector{} : load(rule.mean + c, n);
                Vector v[kParts], z[kParts], sum1{}, sum2{}, best{};
                Mask won[kParts];
                for (int part = 0; part < kParts; ++part) {
                    const int64_t pixel = (step * y + part / 2) * W + step * x + part % 2;
                    will_read(values + (pixel + kRowsAhead * W) * C + c);
                    if (kPass != kSum) will_write(target + (pixel + kRowsAhead * W) * C + c);
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
                    if (m.gain && kPass == kSum) {
                        const int64_t place = pixel * C + c;
                        store(sums.gain + place, load(sums.gain + place, n) + d * norm.scales(v[part]), n);
                        store(sums.offset + place, load(sums.offset + place, n) + d, n);
                    }
                    if (m.gain) d *= norm.gains(pixel);
                    sum1 += d;
                    sum2 += d * (v[part] - mean);
                    if (kPass == kMake)
                        d = d * load(rule.a + c, n) + ((v[part] - mean) * load(rule.b + c, n) + load(rule.k + c, n));
                    if (kPass != kSum) store(target + pixel * C + c, d, n);
                }
                if (kPass != kSum) return;
                store(row.data() + c, load(row.data() + c, n) + sum1, n);
                store(row.data() + C + c, load(row.data() + C + c, n) + sum2, n);
            });
        if (kPass == kSum) {
            for (int64_t c = 0; c < C; ++c) {
                sums.first[c] += row[c];
                sums.second[c] += row[C + c];
            }
            continue;
        }
        for (int64_t rows = 0; rows < step; ++rows)
            for (int64_t x = step * w; x < W; ++x) leave((step * y + rows) * W + x);
    }
    if (kPass != kSum)
        for (int64_t pixel = step * h * W; pixel < m.pixels(); ++pixel) leave(pixel);
}

// mean and the sum of squared deviations from it of an image's channels: (C).
template <typename T>
void statistics(int64_t image, int64_t pixels, int64_t C, const T* in, float* mean, float* squares) {
    const T* values = in + image * pixels * C;
    std::vector<float> part(3 * C);
    std::vector<double> whole(pixels > kDeep ? 2 * C : 0);
    float *sums = part.data(), *deviations = sums + C, *origin = deviations + C;
    double *center = whole.data(), *total = center + C;
    for (int64_t start = 0; start < pixels; start += kDeep) {
        const int64_t end = std::min(pixels, start + kDeep);
        std::fill(sums, origin, 0.0f);
        // Deviations from a pixel nearby: squares of small numbers do not cancel.
        channels(C, [&](int64_t c, auto n) { store(origin + c, load(values + start * C + c, n), n); });
        for (int64_t pixel = start; pixel < end; ++pixel)
            channels(C, [&](int64_t c, auto n) {
                will_read(values + pixel * C + c + kFarther);
                const Vector e = load(values + pixel * C + c, n) - load(origin + c, n);
                store(sums + c, load(sums + c, n) + e, n);
                store(deviations + c, load(deviations + c, n) + e * e, n);
            });
        if (pixels <= kDeep) {
            const float share = 1.0f / static_cast<float>(pixels);
            channels(C, [&](int64_t c, auto n) {
                const Vector sum = load(sums + c, n), shift = sum * share;
                const Vector rest = load(deviations + c, n) - sum * shift;
                store(squares + c, masked(rest, ~(rest <= 0.0f)), n);
                store(mean + c, load(origin + c, n) + shift, n);
            });
            return;
        }
        // Of two sets of numbers together (Chan, Golub and LeVeque 1979).
        const double count = static_cast<double>(end - start), share = count / static_cast<double>(end);
        const double apart = share * static_cast<double>(start);
        for (int64_t c = 0; c < C; ++c) {
            const double sum = sums[c], delta = origin[c] + sum / count - center[c];
            total[c] += deviations[c] - sum * sum / count + delta * delta * apart;
            center[c] += delta * share;
        }
    }
    for (int64_t c = 0; c < C; ++c) {
        mean[c] = static_cast<float>(center[c]);
        squares[c] = total[c] <= 0.0 ? 0.0f : static_cast<float>(total[c]);
    }
}

// A norm whose statistics are each image's own, shared by groups of channels; z = (v - mean) * rstd * weight + bias
// with a channel's weight and bias, which are null where a value has its own, as gain and offset.
struct Own {
    int64_t groups;
    float eps;
    const float *weight, *bias;
    float weigh(int64_t c) const { return weight ? weight[c] : 1.0f; }
};

// The mean of one(c) over the channels first..last-1.
template <typename F>
float average(int64_t first, int64_t last, F one) {
    float sum = 0.0f;
    for (int64_t c = first; c < last; ++c) sum += one(c);
    return sum / static_cast<float>(last - first);
}

// What an image's channels are normalised with, (C) each.
struct Settled {
    float *mean, *rstd, *scale, *shift;
};

// From each channel's mean and squares, where `to` holds them as mean and rstd.
void settle(const Own& own, int64_t pixels, int64_t C, const Settled& to) {
    const int64_t size = C / own.groups;
    for (int64_t first = 0; first < C; first += size) {
        const float center = average(first, first + size, [&](int64_t c) { return to.mean[c]; });
        const float variance = average(first, first + size, [&](int64_t c) {
            return to.rstd[c] / static_cast<float>(pixels) + (to.mean[c] - center) * (to.mean[c] - center);
        });
        const float r = 1.0f / std::sqrt(variance + own.eps);
        for (int64_t c = first; c < first + size; ++c) {
            to.mean[c] = center;
            to.rstd[c] = r;
            to.scale[c] = r * own.weigh(c);
            to.shift[c] = (own.bias ? own.bias[c] : 0.0f) - center * to.scale[c];
        }
    }
}

// From sums of dz and dz * (v - mean) to those of dz and dz * normalised v, and to the rule of the maps' gradient.
void differentiate(const Own& own, int64_t pixels, int64_t C, const Settled& by, float* first_sums,
                   float* second_sums, float* a, float* b, float* k) {
    const int64_t size = C / own.groups;
    for (int64_t first = 0; first < C; first += size) {
        const float r = by.rstd[first];
        for (int64_t c = first; c < first + size; ++c) second_sums[c] *= r;
        const auto shared = [&](const float* sums) {
            return average(first, first + size, [&](int64_t c) { return sums[c] * own.weigh(c); }) /
                   static_cast<float>(pixels);
        };
        const float straight = r * shared(first_sums), across = r * r * shared(second_sums);
        for (int64_t c = first; c < first + size; ++c) {
            a[c] = r * own.weigh(c);
            b[c] = -across;
            k[c] = -straight;
        }
    }
}

// work(image) for every image, shares of them on each of up to `threads` threads.
template <typename F>
void each(const Maps& m, int threads, F work) {
    const int64_t useful = m.n * m.pixels() * m.c / kFewest;
    parallel(m.n, static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, useful))),
             [=](int64_t first, int64_t last) {
                 for (int64_t image = first; image < last; ++image) work(image);
             });
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
// visit(type of the maps), as a null pointer to it.
template <typename F>
void with_type(int half, F visit) {
    if (half) return visit(static_cast<BFloat16*>(nullptr));
    visit(static_cast<float*>(nullptr));
}

template <typename T>
void forward_any(int activation, int pooling, const Maps& m, int64_t image, const T* in, T* out) {
    with_form(activation, pooling, [&](auto a, auto p) { forward<T, a, p>(m, image, in, out); });
}

template <typename T>
void backward_any(int activation, int pooling, int pass, const Maps& m, int64_t image, const T* in, const T* gradient,
                  T* made, const Sums& sums, const Rule& rule) {
    with_form(activation, pooling, [&](auto a, auto p) {
        if (pass == kPlain) return backward<T, a, p, kPlain>(m, image, in, gradient, made, sums, rule);
        if (pass == kSum) return backward<T, a, p, kSum>(m, image, in, gradient, made, sums, rule);
        backward<T, a, p, kMake>(m, image, in, gradient, made, sums, rule);
    });
}

}  // namespace

extern "C" {

void tail_forward(int half, int activation, int pooling, int threads, float slope, int64_t n, int64_t h, int64_t w,
                  int64_t c, const void* in, const float* scale, const float* shift, void* out) {
    const Maps m{n, h, w, c, scale, shift, nullptr, nullptr, slope};
    with_type(half, [=](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        each(m, threads, [=](int64_t image) {
            forward_any(activation, pooling, m, image, static_cast<const T*>(in), static_cast<T*>(out));
        });
    });
}

// pass 0: made = dz. 1: first, second (N, C), zeros before, are the sums of dz and of dz * (v - mean) over an image's
// pixels. 2: made = dz * a + (v - mean) * b + k: dz is computed twice rather than kept, as memory is slower. a, b, k and
// mean are (N, C).
void tail_backward(int half, int activation, int pooling, int threads, float slope, int64_t n, int64_t h, int64_t w,
                   int64_t c, int pass, const void* in, const float* scale, const float* shift, const void* gradient,
                   void* made, float* first, float* second, const float* a, const float* b, const float* k,
                   const float* mean) {
    const Maps m{n, h, w, c, scale, shift, nullptr, nullptr, slope};
    with_type(half, [=](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const T *values = static_cast<const T*>(in), *arriving = static_cast<const T*>(gradient);
        each(m, threads, [=](int64_t image) {
            const int64_t own = pass == kPlain ? 0 : image * c;
            const Sums sums{first + own, second + own, nullptr, nullptr};
            backward_any(activation, pooling, pass, m, image, values, arriving, static_cast<T*>(made), sums,
                         Rule{a + own, b + own, k + own, mean + own});
        });
    });
}

// mean and the sum of squared deviations from it, of each image and channel: (N, C).
void tail_statistics(int half, int threads, int64_t n, int64_t pixels, int64_t c, const void* in, float* mean,
                     float* squares) {
    const Maps m{n, pixels, 1, c, nullptr, nullptr, nullptr, nullptr, 0.0f};
    with_type(half, [=](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        each(m, threads, [=](int64_t image) {
            statistics(image, pixels, c, static_cast<const T*>(in), mean + image * c, squares + image * c);
        });
    });
}

// A norm by each image's own statistics, and what follows: an image at a time, so that its maps are read from
// memory once. To mean, rstd, scale, shift (4, N, C) and the output.
void own_forward(int half, int activation, int pooling, int threads, float slope, int64_t n, int64_t h, int64_t w,
                 int64_t c, const void* in, int64_t groups, float eps, const float* weight, const float* bias,
                 const float* gain, const float* offset, float* settled, void* out) {
    const int64_t all = n * c;
    const Maps m{n, h, w, c, settled + 2 * all, settled + 3 * all, gain, offset, slope};
    const Own own{groups, eps, weight, bias};
    with_type(half, [=](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const T* values = static_cast<const T*>(in);
        each(m, threads, [=](int64_t image) {
            float* first = settled + image * c;
            const Settled to{first, first + all, first + 2 * all, first + 3 * all};
            statistics(image, h * w, c, values, to.mean, to.rstd);
            settle(own, h * w, c, to);
            forward_any(activation, pooling, m, image, values, static_cast<T*>(out));
        });
    });
}

// To the maps' gradient; sums (2, N, C), zeros before, of dz and of dz times the normalised value over an image's
// pixels; dgain, doffset (H, W, C): added to, on one thread, so that sums have one order.
void own_backward(int half, int activation, int pooling, int threads, float slope, int64_t n, int64_t h, int64_t w,
                  int64_t c, const void* in, int64_t groups, const float* weight, const float* gain,
                  const float* offset, float* settled, const void* gradient, void* made, float* sums, float* dgain,
                  float* doffset) {
    const int64_t all = n * c;
    const Maps m{n, h, w, c, settled + 2 * all, settled + 3 * all, gain, offset, slope};
    const Own own{groups, 0.0f, weight, nullptr};
    with_type(half, [=](auto* type) {
        using T = std::remove_pointer_t<decltype(type)>;
        const T *values = static_cast<const T*>(in), *arriving = static_cast<const T*>(gradient);
        each(m, gain ? 1 : threads, [=](int64_t image) {
            const Settled by{settled + image * c, settled + all + image * c, nullptr, nullptr};
            const Sums to{sums + image * c, sums + all + image * c, dgain, doffset};
            std::vector<float> rule(3 * c);
            float *a = rule.data(), *b = a + c, *k = b + c;
            T* target = static_cast<T*>(made);
            backward_any(activation, pooling, kSum, m, image, values, arriving, target, to,
                         Rule{a, b, k, by.mean});
            differentiate(own, h * w, c, by, to.first, to.second, a, b, k);
            backward_any(activation, pooling, kMake, m, image, values, arriving, target, to,
                         Rule{a, b, k, by.mean});
        });
    });
}
}

// What follows a convolution, in one pass: normalise, activate, pool. Forward, backward and statistics.
//
// Maps are channels-last: element (n, y, x, c) of N x H x W x C; T is float or bfloat16, sums are float.
// z = (v * scale + shift) * gain + offset, out = pool(act(z)), where scale and shift are (N, C) or null (v as it
// is), gain and offset (H, W, C) or null. Loops run over c innermost, which the compiler turns into vectors.

#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct BFloat16 {
    uint16_t bits;
};

inline float load(const float* p) { return *p; }
inline float load(const BFloat16* p) {
    uint32_t bits = static_cast<uint32_t>(p->bits) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
inline void store(float* p, float value) { *p = value; }
inline void store(BFloat16* p, float value) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    p->bits = nan ? 0x7fc0u : static_cast<uint16_t>(rounded);
}

// exp by 2^n * 2^f with a polynomial for 2^f, |f| <= 1/2; relative error about 2e-7.
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    const float t = x * 1.44269504f;
    const float whole = (t + 12582912.0f) - 12582912.0f;
    const float f = t - whole;
    float p = 1.54034e-4f;
    p = p * f + 1.333356e-3f;
    p = p * f + 9.618129e-3f;
    p = p * f + 5.550411e-2f;
    p = p * f + 2.402265e-1f;
    p = p * f + 6.931472e-1f;
    p = p * f + 1.0f;
    const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(whole) + 127) << 23;
    float power;
    std::memcpy(&power, &bits, 4);
    return p * power;
}

enum Activation { kIdentity = 0, kLeaky = 1, kSigmoid = 2 };  // ReLU is leaky with slope 0
enum Pooling { kNone = 0, kMax = 1, kAverage = 2 };

template <int A>
inline float activate(float z, float slope) {
    if (A == kLeaky) return z > 0.0f ? z : z * slope;
    if (A == kSigmoid) return 1.0f / (1.0f + exponential(-z));
    return z;
}
template <int A>
inline float derivative(float z, float slope) {
    if (A == kLeaky) return z > 0.0f ? 1.0f : slope;
    if (A == kSigmoid) {
        const float s = 1.0f / (1.0f + exponential(-z));
        return s * (1.0f - s);
    }
    return 1.0f;
}

struct Maps {
    int64_t n, h, w, c;
    const float *scale, *shift, *gain, *offset;
    float slope;
};

// z of one pixel, all channels.
template <typename T>
inline void affine(const Maps& m, const T* v, int64_t n, int64_t pixel, float* __restrict z) {
    const int64_t C = m.c;
    if (m.scale) {
        const float* __restrict s = m.scale + n * C;
        const float* __restrict b = m.shift + n * C;
        for (int64_t c = 0; c < C; ++c) z[c] = load(v + c) * s[c] + b[c];
    } else {
        for (int64_t c = 0; c < C; ++c) z[c] = load(v + c);
    }
    if (m.gain) {
        const float* __restrict g = m.gain + pixel * C;
        const float* __restrict o = m.offset + pixel * C;
        for (int64_t c = 0; c < C; ++c) z[c] = z[c] * g[c] + o[c];
    }
}

template <typename T, int A, int P>
void forward(const Maps& m, const T* in, T* out) {
    const int64_t C = m.c, W = m.w, H = m.h;
    std::vector<float> buffer(2 * C);
    float* __restrict z = buffer.data();
    float* __restrict best = buffer.data() + C;
    for (int64_t n = 0; n < m.n; ++n) {
        const T* image = in + n * H * W * C;
        if (P == kNone) {
            T* target = out + n * H * W * C;
            for (int64_t pixel = 0; pixel < H * W; ++pixel) {
                affine(m, image + pixel * C, n, pixel, z);
                for (int64_t c = 0; c < C; ++c) store(target + pixel * C + c, activate<A>(z[c], m.slope));
            }
            continue;
        }
        const int64_t h = H / 2, w = W / 2;
        for (int64_t y = 0; y < h; ++y) {
            for (int64_t x = 0; x < w; ++x) {
                for (int part = 0; part < 4; ++part) {
                    const int64_t pixel = (2 * y + part / 2) * W + 2 * x + part % 2;
                    affine(m, image + pixel * C, n, pixel, z);
                    if (part == 0) {
                        for (int64_t c = 0; c < C; ++c) best[c] = activate<A>(z[c], m.slope);
                    } else if (P == kMax) {
                        for (int64_t c = 0; c < C; ++c) {
                            const float a = activate<A>(z[c], m.slope);
                            best[c] = a > best[c] || a != a ? a : best[c];
                        }
                    } else {
                        for (int64_t c = 0; c < C; ++c) best[c] += activate<A>(z[c], m.slope);
                    }
                }
                T* target = out + ((n * h + y) * w + x) * C;
                const float factor = P == kAverage ? 0.25f : 1.0f;
                for (int64_t c = 0; c < C; ++c) store(target + c, best[c] * factor);
            }
        }
    }
}

// Adds one pixel's dz to the sums, and stores its gradient with respect to the normalised value.
template <typename T>
inline void deposit(const Maps& m, const T* v, float* __restrict d, int64_t n, int64_t pixel, T* target,
                    float* __restrict s1, float* __restrict s2, float* dgain, float* doffset) {
    const int64_t C = m.c;
    if (m.gain) {
        const float* __restrict g = m.gain + pixel * C;
        const float* __restrict s = m.scale + n * C;
        const float* __restrict b = m.shift + n * C;
        float* __restrict dg = dgain + pixel * C;
        float* __restrict dof = doffset + pixel * C;
        for (int64_t c = 0; c < C; ++c) {
            dg[c] += d[c] * (load(v + c) * s[c] + b[c]);
            dof[c] += d[c];
            d[c] *= g[c];
        }
    }
    if (s1) {
        for (int64_t c = 0; c < C; ++c) {
            s1[c] += d[c];
            s2[c] += d[c] * load(v + c);
        }
    }
    for (int64_t c = 0; c < C; ++c) store(target + c, d[c]);
}

template <typename T, int A, int P>
void backward(const Maps& m, const T* in, const T* gradient, T* dz, float* sums1, float* sums2, float* dgain,
              float* doffset) {
    const int64_t C = m.c, W = m.w, H = m.h;
    std::vector<float> buffer(6 * C);
    std::vector<int32_t> winners(C);
    float* __restrict best = buffer.data() + 4 * C;
    float* __restrict d = buffer.data() + 5 * C;
    int32_t* __restrict winner = winners.data();
    for (int64_t n = 0; n < m.n; ++n) {
        const T* image = in + n * H * W * C;
        T* target = dz + n * H * W * C;
        float* s1 = sums1 ? sums1 + n * C : nullptr;
        float* s2 = sums2 ? sums2 + n * C : nullptr;
        if (P == kNone) {
            const T* g = gradient + n * H * W * C;
            float* __restrict z = buffer.data();
            for (int64_t pixel = 0; pixel < H * W; ++pixel) {
                affine(m, image + pixel * C, n, pixel, z);
                for (int64_t c = 0; c < C; ++c) d[c] = load(g + pixel * C + c) * derivative<A>(z[c], m.slope);
                deposit(m, image + pixel * C, d, n, pixel, target + pixel * C, s1, s2, dgain, doffset);
            }
            continue;
        }
        const int64_t h = H / 2, w = W / 2;
        for (int64_t y = 0; y < h; ++y) {
            for (int64_t x = 0; x < w; ++x) {
                const T* g = gradient + ((n * h + y) * w + x) * C;
                for (int part = 0; part < 4; ++part) {
                    const int64_t pixel = (2 * y + part / 2) * W + 2 * x + part % 2;
                    float* __restrict z = buffer.data() + part * C;
                    affine(m, image + pixel * C, n, pixel, z);
                    if (P != kMax) continue;
                    if (part == 0) {
                        for (int64_t c = 0; c < C; ++c) {
                            best[c] = activate<A>(z[c], m.slope);
                            winner[c] = 0;
                        }
                    } else {
                        for (int64_t c = 0; c < C; ++c) {
                            const float a = activate<A>(z[c], m.slope);
                            const bool higher = a > best[c] || a != a;
                            best[c] = higher ? a : best[c];
                            winner[c] = higher ? part : winner[c];
                        }
                    }
                }
                for (int part = 0; part < 4; ++part) {
                    const int64_t pixel = (2 * y + part / 2) * W + 2 * x + part % 2;
                    const float* __restrict z = buffer.data() + part * C;
                    if (P == kMax) {
                        for (int64_t c = 0; c < C; ++c) {
                            const float share = winner[c] == part ? load(g + c) : 0.0f;
                            d[c] = share * derivative<A>(z[c], m.slope);
                        }
                    } else {
                        for (int64_t c = 0; c < C; ++c) d[c] = 0.25f * load(g + c) * derivative<A>(z[c], m.slope);
                    }
                    deposit(m, image + pixel * C, d, n, pixel, target + pixel * C, s1, s2, dgain, doffset);
                }
            }
        }
        // Rows and columns that pooling leaves over get no gradient.
        for (int64_t y = 0; y < H; ++y)
            for (int64_t x = 0; x < W; ++x)
                if (y >= 2 * h || x >= 2 * w)
                    for (int64_t c = 0; c < C; ++c) store(target + (y * W + x) * C + c, 0.0f);
    }
}

template <typename T>
void statistics(int64_t N, int64_t pixels, int64_t C, const T* in, float* mean, float* squares) {
    std::vector<float> buffer(C);
    float* __restrict origin = buffer.data();
    for (int64_t n = 0; n < N; ++n) {
        const T* image = in + n * pixels * C;
        float* __restrict s = mean + n * C;
        float* __restrict q = squares + n * C;
        // Deviations from the first pixel: squares of small numbers do not cancel.
        for (int64_t c = 0; c < C; ++c) {
            origin[c] = load(image + c);
            s[c] = q[c] = 0.0f;
        }
        for (int64_t pixel = 1; pixel < pixels; ++pixel) {
            const T* v = image + pixel * C;
            for (int64_t c = 0; c < C; ++c) {
                const float e = load(v + c) - origin[c];
                s[c] += e;
                q[c] += e * e;
            }
        }
        const float share = 1.0f / static_cast<float>(pixels);
        for (int64_t c = 0; c < C; ++c) {
            const float m = s[c] * share;
            const float rest = q[c] - s[c] * m;
            q[c] = rest > 0.0f || rest != rest ? rest : 0.0f;
            s[c] = origin[c] + m;
        }
    }
}

template <typename T>
void combine(int64_t N, int64_t pixels, int64_t C, const T* in, T* dz, const float* a, const float* b,
             const float* k) {
    for (int64_t n = 0; n < N; ++n) {
        const float* __restrict an = a + n * C;
        const float* __restrict bn = b + n * C;
        const float* __restrict kn = k + n * C;
        for (int64_t pixel = 0; pixel < pixels; ++pixel) {
            const T* __restrict v = in + (n * pixels + pixel) * C;
            T* __restrict d = dz + (n * pixels + pixel) * C;
            for (int64_t c = 0; c < C; ++c) store(d + c, load(d + c) * an[c] + load(v + c) * bn[c] + kn[c]);
        }
    }
}

template <typename T, int A>
void forward_pooled(int pooling, const Maps& m, const void* in, void* out) {
    const T* i = static_cast<const T*>(in);
    T* o = static_cast<T*>(out);
    if (pooling == kMax) return forward<T, A, kMax>(m, i, o);
    if (pooling == kAverage) return forward<T, A, kAverage>(m, i, o);
    forward<T, A, kNone>(m, i, o);
}

template <typename T>
void forward_any(int activation, int pooling, const Maps& m, const void* in, void* out) {
    if (activation == kLeaky) return forward_pooled<T, kLeaky>(pooling, m, in, out);
    if (activation == kSigmoid) return forward_pooled<T, kSigmoid>(pooling, m, in, out);
    forward_pooled<T, kIdentity>(pooling, m, in, out);
}

struct Gradients {
    float *sums1, *sums2, *gain, *offset;
};

template <typename T, int A>
void backward_pooled(int pooling, const Maps& m, const void* in, const void* gradient, void* dz, Gradients s) {
    const T* i = static_cast<const T*>(in);
    const T* g = static_cast<const T*>(gradient);
    T* d = static_cast<T*>(dz);
    if (pooling == kMax) return backward<T, A, kMax>(m, i, g, d, s.sums1, s.sums2, s.gain, s.offset);
    if (pooling == kAverage) return backward<T, A, kAverage>(m, i, g, d, s.sums1, s.sums2, s.gain, s.offset);
    backward<T, A, kNone>(m, i, g, d, s.sums1, s.sums2, s.gain, s.offset);
}

template <typename T>
void backward_any(int activation, int pooling, const Maps& m, const void* in, const void* g, void* dz, Gradients s) {
    if (activation == kLeaky) return backward_pooled<T, kLeaky>(pooling, m, in, g, dz, s);
    if (activation == kSigmoid) return backward_pooled<T, kSigmoid>(pooling, m, in, g, dz, s);
    backward_pooled<T, kIdentity>(pooling, m, in, g, dz, s);
}

}  // namespace

extern "C" {

void tail_forward(int half, int activation, int pooling, float slope, int64_t n, int64_t h, int64_t w, int64_t c,
                  const void* in, const float* scale, const float* shift, const float* gain, const float* offset,
                  void* out) {
    const Maps m{n, h, w, c, scale, shift, gain, offset, slope};
    if (half) return forward_any<BFloat16>(activation, pooling, m, in, out);
    forward_any<float>(activation, pooling, m, in, out);
}

// sums1, sums2 (N, C): of dz and dz * v over the pixels of an image; dgain, doffset (H, W, C): added to.
void tail_backward(int half, int activation, int pooling, float slope, int64_t n, int64_t h, int64_t w, int64_t c,
                   const void* in, const float* scale, const float* shift, const float* gain, const float* offset,
                   const void* gradient, void* dz, float* sums1, float* sums2, float* dgain, float* doffset) {
    const Maps m{n, h, w, c, scale, shift, gain, offset, slope};
    const Gradients s{sums1, sums2, dgain, doffset};
    if (half) return backward_any<BFloat16>(activation, pooling, m, in, gradient, dz, s);
    backward_any<float>(activation, pooling, m, in, gradient, dz, s);
}

// mean and the sum of squared deviations from it, of each image and channel: (N, C).
void tail_statistics(int half, int64_t n, int64_t pixels, int64_t c, const void* in, float* mean, float* squares) {
    if (half) return statistics(n, pixels, c, static_cast<const BFloat16*>(in), mean, squares);
    statistics(n, pixels, c, static_cast<const float*>(in), mean, squares);
}

// dz := dz * a + v * b + k, with a, b, k (N, C).
void tail_combine(int half, int64_t n, int64_t pixels, int64_t c, const void* in, void* dz, const float* a,
                  const float* b, const float* k) {
    if (half) return combine(n, pixels, c, static_cast<const BFloat16*>(in), static_cast<BFloat16*>(dz), a, b, k);
    combine(n, pixels, c, static_cast<const float*>(in), static_cast<float*>(dz), a, b, k);
}
}

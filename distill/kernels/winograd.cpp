// 3x3 convolutions of stride 1 and padding 1 by minimal filtering F(4x4, 3x3): 36 multiplications for 16 outputs
// instead of 144. Lavin and Gray 2016, arXiv:1509.09308. Gradients with respect to images and weights.
//
// Maps are channels-last float, N x H x W x C, C and K multiples of 16. An output tile is 4x4 pixels, y = At m A with
// m = u * v at each of 36 points, v = Bt d B of the 6x6 pixels d under it, u = G g Gt of the 3x3 filter g; sums over
// channels are matrix products, one a point. The gradient with respect to the images is a convolution too, of
// turned filters; the one with respect to the weights is G't (sum over tiles of v (A dy At)) G.

#include <algorithm>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "product.h"

namespace {

constexpr int kPoints = 36;
constexpr int64_t kGroup = 16;  // channels that one thread takes
constexpr int64_t kBlockBytes = 448 << 10;  // of a block's points: they stay in a core's second cache
constexpr int64_t kSumBytes = 1536 << 10;  // the same where each block adds to sums, which larger ones read less often
constexpr int64_t kSums = 128 * 128;  // input times output channels whose sums are held at a time

// Bt x, A x and At x of vectors, and the filter's G x and Gt x.
inline void to_points(const Vector* x, int stride, Vector* y, int step) {
    const Vector x0 = x[0], x1 = x[stride], x2 = x[2 * stride], x3 = x[3 * stride], x4 = x[4 * stride],
                 x5 = x[5 * stride];
    const Vector even = x4 - 4.0f * x2, odd = x3 - 4.0f * x1, near = x4 - x2, twice = 2.0f * (x3 - x1);
    y[0] = 4.0f * x0 - 5.0f * x2 + x4;
    y[step] = even + odd;
    y[2 * step] = even - odd;
    y[3 * step] = near + twice;
    y[4 * step] = near - twice;
    y[5 * step] = 4.0f * x1 - 5.0f * x3 + x5;
}
inline void from_points(const Vector* x, int stride, Vector* y, int step) {
    const Vector plus = x[stride] + x[2 * stride], minus = x[stride] - x[2 * stride];
    const Vector more = x[3 * stride] + x[4 * stride], less = x[3 * stride] - x[4 * stride];
    y[0] = x[0] + plus + more;
    y[step] = minus + 2.0f * less;
    y[2 * step] = plus + 4.0f * more;
    y[3 * step] = minus + 8.0f * less + x[5 * stride];
}
inline void spread(const Vector* x, int stride, Vector* y, int step) {
    const Vector x0 = x[0], x1 = x[stride], x2 = x[2 * stride], x3 = x[3 * stride];
    const Vector even = x0 + x2, odd = x1 + x3, far = x0 + 4.0f * x2, side = 2.0f * x1 + 8.0f * x3;
    y[0] = x0;
    y[step] = even + odd;
    y[2 * step] = even - odd;
    y[3 * step] = far + side;
    y[4 * step] = far - side;
    y[5 * step] = x3;
}
inline void widen(const Vector* x, int stride, Vector* y, int step) {
    const Vector x0 = x[0] * (1.0f / 24), x1 = x[stride] * (1.0f / 12), x2 = x[2 * stride] * (1.0f / 6);
    const Vector even = x[0] * (-1.0f / 6) - x2, odd = x[stride] * (-1.0f / 6);
    y[0] = x[0] * 0.25f;
    y[step] = even + odd;
    y[2 * step] = even - odd;
    y[3 * step] = x0 + x2 + x1;
    y[4 * step] = x0 + x2 - x1;
    y[5 * step] = x[2 * stride];
}
inline void narrow(const Vector* x, int stride, Vector* y, int step) {
    const Vector plus = x[stride] + x[2 * stride], minus = x[stride] - x[2 * stride];
    const Vector more = x[3 * stride] + x[4 * stride], less = x[3 * stride] - x[4 * stride];
    y[0] = x[0] * (1.0f / 4) - plus * (1.0f / 6) + more * (1.0f / 24);
    y[step] = less * (1.0f / 12) - minus * (1.0f / 6);
    y[2 * step] = (more - plus) * (1.0f / 6) + x[5 * stride];
}

// Floats from one point of a block to the next: not a multiple of a page, where all points would share cache lines.
constexpr int64_t spacing(int64_t tiles, int64_t channels) { return tiles * channels + 16; }

struct Strides {
    int64_t k, c, y, x;
    int64_t of(int64_t i, int64_t j, int64_t row, int64_t column) const { return i * k + j * c + row * y + column * x; }
};

// Where an output tile lies.
struct Grid {
    int64_t n, h, w;
    int64_t down() const { return (h + 3) / 4; }
    int64_t across() const { return (w + 3) / 4; }
    int64_t tiles() const { return n * down() * across(); }
};
struct Place {
    int64_t image, y, x;
    Place(const Grid& g, int64_t tile)
        : image(tile / (g.down() * g.across())), y(tile / g.across() % g.down() * 4), x(tile % g.across() * 4) {}
};

// The pixels (y..y+S, x..x+S) of a map as pointers; `outside` stands for those beyond its edges.
template <int S>
inline void locate(const Grid& g, const float* map, int64_t channels, int64_t image, int64_t y, int64_t x,
                   const float* outside, const float** found) {
    for (int i = 0; i < S; ++i)
        for (int j = 0; j < S; ++j) {
            const bool inside = y + i >= 0 && y + i < g.h && x + j >= 0 && x + j < g.w;
            found[i * S + j] = inside ? map + ((image * g.h + y + i) * g.w + x + j) * channels : outside;
        }
}

// Channels first..last-1 of tiles start..start+count-1 to their points: v[point][tile][channel - first]. S = 6 for the
// pixels under a tile (Bt d B), S = 4 for its gradients (A dy At).
template <int S>
void transform(const Grid& g, const float* map, int64_t channels, int64_t first, int64_t last, int64_t start,
               int64_t count, const float* outside, float* v) {
    const int64_t size = last - first, plane = spacing(count, size);
    constexpr int kBorder = S == 6 ? 1 : 0;
    for (int64_t t = 0; t < count; ++t) {
        const Place place(g, start + t);
        const float* pixels[S * S];
        locate<S>(g, map, channels, place.image, place.y - kBorder, place.x - kBorder, outside, pixels);
        for (int64_t c = 0; c < size; c += kWidth) {
            Vector in[S * S], half[S * 6], out[kPoints];
            for (int i = 0; i < S * S; ++i) {
                in[i] = get(pixels[i] + first + c);
                if (i % S < 4 && i / S < 4) __builtin_prefetch(pixels[i] + first + c + 4 * g.w * channels, 0, 2);
            }
            for (int i = 0; i < S; ++i)
                S == 6 ? to_points(in + i * S, 1, half + i * 6, 1) : spread(in + i * S, 1, half + i * 6, 1);
            for (int j = 0; j < 6; ++j) S == 6 ? to_points(half + j, 6, out + j, 6) : spread(half + j, 6, out + j, 6);
            for (int p = 0; p < kPoints; ++p) put(v + p * plane + t * size + c, out[p]);
        }
    }
}

// Points to output pixels: y = At m A + bias.
void collect(const Grid& g, const float* m, int64_t channels, int64_t start, int64_t count, const float* bias,
             float* map) {
    const int64_t plane = spacing(count, channels);
    for (int64_t t = 0; t < count; ++t) {
        const Place place(g, start + t);
        const int64_t height = std::min<int64_t>(4, g.h - place.y), width = std::min<int64_t>(4, g.w - place.x);
        for (int64_t c = 0; c < channels; c += kWidth) {
            Vector in[kPoints], half[24], out[16];
            for (int p = 0; p < kPoints; ++p) in[p] = get(m + p * plane + t * channels + c);
            for (int i = 0; i < 6; ++i) from_points(in + i * 6, 1, half + i * 4, 1);
            for (int j = 0; j < 4; ++j) from_points(half + j, 4, out + j, 4);
            const Vector shift = bias ? get(bias + c) : Vector{};
            for (int64_t i = 0; i < height; ++i)
                for (int64_t j = 0; j < width; ++j) {
                    float* to = map + ((place.image * g.h + place.y + i) * g.w + place.x + j) * channels + c;
                    __builtin_prefetch(to + 4 * g.w * channels, 1, 2);
                    put(to, out[i * 4 + j] + shift);
                }
        }
    }
}

// Tiles of a block that a core works on at a time: points of c and k channels.
int64_t block_size(const Grid& g, int64_t channels, int64_t bytes) {
    const int64_t fit = bytes / (kPoints * 4 * channels) / kRows * kRows;
    return std::min(g.tiles(), std::max<int64_t>(kRows, fit));
}

void forward(const Grid& g, int64_t first, int64_t last, int64_t c, int64_t k, const float* in, const float* u,
             const float* bias, float* out) {
    const int64_t size = std::min(last - first, block_size(g, c + k, kBlockBytes));
    const std::vector<float> outside(c);
    std::vector<float> v(kPoints * spacing(size, c)), m(kPoints * spacing(size, k));
    for (int64_t start = first; start < last; start += size) {
        const int64_t count = std::min(size, last - start);
        transform<6>(g, in, c, 0, c, start, count, outside.data(), v.data());
        for (int p = 0; p < kPoints; ++p)
            multiply(count, k, c, Left{v.data() + p * spacing(count, c), c, 1}, Right{u + p * c * k, true},
                     Start{false}, m.data() + p * spacing(count, k));
        collect(g, m.data(), k, start, count, bias, out);
    }
}

// The gradient with respect to the filters' input channels first..last-1. The sums' order does not depend on these.
void filters_gradient(const Grid& g, int64_t first, int64_t last, int64_t c, int64_t k, const float* in,
                      const float* gradient, const Strides& strides, float* out) {
    const int64_t channels = last - first, size = block_size(g, c + k, kSumBytes);
    const std::vector<float> outside(std::max(c, k));
    std::vector<float> v(kPoints * spacing(size, channels)), d(kPoints * spacing(size, k));
    std::vector<float> sums(kPoints * channels * k);
    for (int64_t start = 0; start < g.tiles(); start += size) {
        const int64_t count = std::min(size, g.tiles() - start);
        transform<6>(g, in, c, first, last, start, count, outside.data(), v.data());
        transform<4>(g, gradient, k, 0, k, start, count, outside.data(), d.data());
        for (int p = 0; p < kPoints; ++p)
            multiply(channels, k, count, Left{v.data() + p * spacing(count, channels), 1, channels},
                     Right{d.data() + p * spacing(count, k), false}, Start{start > 0}, sums.data() + p * channels * k);
    }
    for (int64_t row = 0; row < channels; ++row) {
        for (int64_t column = 0; column < k; column += kWidth) {
            Vector in_points[kPoints], half[18], filter[9];
            for (int p = 0; p < kPoints; ++p) in_points[p] = get(sums.data() + (p * channels + row) * k + column);
            for (int i = 0; i < 6; ++i) narrow(in_points + i * 6, 1, half + i * 3, 1);
            for (int j = 0; j < 3; ++j) narrow(half + j, 3, filter + j, 3);
            for (int lane = 0; lane < kWidth; ++lane)
                for (int i = 0; i < 9; ++i)
                    out[strides.of(column + lane, first + row, i / 3, i % 3)] = filter[i][lane];
        }
    }
}

}  // namespace

extern "C" {

// Filters (k, c, y, x) at strides (sk, sc, sy, sx) to their points: u (36, C, K), in panels of columns. `turned` is for
// the gradient with respect to images: filters are read from their ends, and c counts their outputs, k their inputs.
void winograd_filters(int turned, int64_t c, int64_t k, int64_t sk, int64_t sc, int64_t sy, int64_t sx,
                      const float* weight, float* u) {
    const Strides strides{turned ? sc : sk, turned ? sk : sc, sy, sx};
    for (int64_t column = 0; column < k; column += kWidth) {
        const int64_t panel = column / kPanel * kPanel, width = std::min<int64_t>(kPanel, k - panel);
        for (int64_t row = 0; row < c; ++row) {
            Vector filter[9], half[18], out[kPoints];
            for (int lane = 0; lane < kWidth; ++lane)
                for (int i = 0; i < 9; ++i)
                    filter[turned ? 8 - i : i][lane] = weight[strides.of(column + lane, row, i / 3, i % 3)];
            for (int i = 0; i < 3; ++i) widen(filter + i * 3, 1, half + i * 6, 1);
            for (int j = 0; j < 6; ++j) widen(half + j, 6, out + j, 6);
            for (int p = 0; p < kPoints; ++p) put(u + (p * k + panel) * c + row * width + column - panel, out[p]);
        }
    }
}

// out (N, H, W, K): in (N, H, W, C) convolved with filters made by `winograd_filters`, plus bias (K) if not null.
void winograd_forward(int threads, int64_t n, int64_t h, int64_t w, int64_t c, int64_t k, const float* in,
                      const float* u, const float* bias, float* out) {
    const Grid g{n, h, w};
    parallel(g.tiles(), threads,
             [=](int64_t first, int64_t last) { forward(g, first, last, c, k, in, u, bias, out); });
}

// out: the gradient with respect to the filters, (k, c, y, x) at the given strides, of in (N, H, W, C) and
// gradient (N, H, W, K).
void winograd_gradient(int threads, int64_t n, int64_t h, int64_t w, int64_t c, int64_t k, int64_t sk, int64_t sc,
                       int64_t sy, int64_t sx, const float* in, const float* gradient, float* out) {
    const Grid g{n, h, w};
    const Strides strides{sk, sc, sy, sx};
    parallel(c / kGroup, threads, [=](int64_t first, int64_t last) {
        const int64_t channels = std::max<int64_t>(1, kSums / k / kGroup) * kGroup;
        for (int64_t start = first * kGroup; start < last * kGroup; start += channels)
            filters_gradient(g, start, std::min(start + channels, last * kGroup), c, k, in, gradient, strides, out);
    });
}
}

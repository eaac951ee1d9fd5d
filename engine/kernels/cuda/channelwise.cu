// Passes with one coefficient a channel, over (outer, channels, inner), and sums of channels
// (channelwise.py).
#include "elementwise.cuh"

// The channel of an element; arrays have fewer than 2^31.
struct Channel {
    unsigned channels, inner, channel, rest;

    __device__ Channel(index_t channels, index_t inner) : channels(channels), inner(inner) {}
    __device__ void start(index_t i) {
        unsigned row = (unsigned)i / inner;
        rest = (unsigned)i - row * inner;
        channel = row % channels;
    }
    __device__ void next() {
        if (++rest < inner) return;
        rest = 0;
        if (++channel == channels) channel = 0;
    }
};

KERNEL relu(const real *x, const real *slope, real *out, index_t channels, index_t inner,
            index_t n) {
    auto f = [=](Channel at, acc v) { return v > 0 ? v : v * wide(slope[at.channel]) + acc(0); };
    map_at(n, out, Channel(channels, inner), f, x);
}

KERNEL relu_backward(const real *x, const real *dy, const real *slope, real *out,
                     index_t channels, index_t inner, index_t n) {
    auto f = [=](Channel at, acc v, acc d) { return v > 0 ? d : d * wide(slope[at.channel]); };
    map_at(n, out, Channel(channels, inner), f, x, dy);
}

KERNEL add_rows(real *y, const real *b, int relu, index_t columns, index_t n) {
    auto f = [=](Channel at, acc v) {
        acc total = v + wide(b[at.channel]);
        return relu ? rectified(total) : total;
    };
    map_at(n, y, Channel(columns, 1), f, (const real *)y);
}

KERNEL affine(const real *x, const real *centre, const real *scale, const real *offset, real *out,
              index_t channels, index_t inner, index_t n) {
    auto f = [=](Channel at, acc v) {
        unsigned c = at.channel;
        return (v - wide(centre[c])) * wide(scale[c]) + wide(offset[c]);
    };
    map_at(n, out, Channel(channels, inner), f, x);
}

KERNEL normalise(const real *x, const real *centre, const real *factor, const real *scale,
                 const real *offset, real *out, int relu, index_t channels, index_t inner,
                 index_t n) {
    auto f = [=](Channel at, acc v) {
        unsigned c = at.channel;
        acc y = (v - wide(centre[c])) * wide(factor[c]) * wide(scale[c]) + wide(offset[c]);
        return relu ? rectified(y) : y;
    };
    map_at(n, out, Channel(channels, inner), f, x);
}

KERNEL combine(const real *x, const real *x_centre, const real *x_scale, const real *y,
               const real *y_centre, const real *y_scale, real *out, index_t channels,
               index_t inner, index_t n) {
    auto f = [=](Channel at, acc v, acc w) {
        unsigned c = at.channel;
        return (v - wide(x_centre[c])) * wide(x_scale[c]) +
               (w - wide(y_centre[c])) * wide(y_scale[c]);
    };
    map_at(n, out, Channel(channels, inner), f, x, y);
}

// ---- sums of channels, in double precision
//
// What is summed of an element is a pair of terms. Blocks sum parts, `fold` adds these up. Which
// element is summed when is a function of the shape alone.

struct Terms {
    double first, second;

    __device__ void add(Terms other) {
        first += other.first;
        second += other.second;
    }
};

struct Centred {  // x - a and (x - a) * (y - b)
    acc a, b;

    __device__ Terms operator()(acc x, acc y) const {
        acc near = x - a;
        return {(double)near, (double)near * (double)(y - b)};
    }
};

struct Slopes {  // min(x, 0) * dy
    __device__ Terms operator()(acc x, acc dy) const {
        return {(double)(x > 0 ? acc(0) : x) * (double)dy, 0.};
    }
};

struct Values {  // x
    __device__ Terms operator()(acc x, acc) const { return {(double)x, 0.}; }
};

template <int WIDTH>
__device__ inline Pack<real, WIDTH> neighbours(const real *p, bool packed) {
    if (packed) return *(const Pack<real, WIDTH> *)p;
    Pack<real, WIDTH> values;
    for (int j = 0; j < WIDTH; j++) values.v[j] = p[j];
    return values;
}

// A part of a channel: its positions [low, high), as lines one after the other, in WIDTHs.
template <int WIDTH, class F>
__device__ inline Terms sum_part(const real *x, const real *y, F f, unsigned channel,
                                 unsigned channels, unsigned inner, unsigned low, unsigned high) {
    bool packed = packs_at<real, WIDTH>(x) && packs_at<real, WIDTH>(y);
    unsigned p = low + threadIdx.x, line = p / inner, place = p % inner;
    unsigned lines = THREADS / inner, places = THREADS % inner;
    Terms whole = {0., 0.};
#pragma unroll 4
    for (; p < high; p += THREADS) {
        index_t at = (((index_t)line * channels + channel) * inner + place) * WIDTH;
        auto xs = neighbours<WIDTH>(x + at, packed), ys = neighbours<WIDTH>(y + at, packed);
#pragma unroll
        for (int j = 0; j < WIDTH; j++) whole.add(f(wide(xs.v[j]), wide(ys.v[j])));
        line += lines;
        place += places;
        if (place >= inner) {
            place -= inner;
            line++;
        }
    }
    return whole;
}

// Long rows: a block for each channel and part.
template <class F>
__device__ inline void sum_rows(const real *x, const real *y, double *first, double *second,
                                F terms, index_t outer, index_t channels, index_t inner,
                                index_t parts) {
    __shared__ double shared[32];
    unsigned channel = blockIdx.x % channels, part = blockIdx.x / channels;
    bool whole_packs = inner % PACK == 0;
    index_t count = outer * inner / (whole_packs ? PACK : 1), length = (count + parts - 1) / parts;
    index_t low = min(part * length, count), high = min(low + length, count);
    Terms sum = whole_packs
        ? sum_part<PACK>(x, y, terms(channel), channel, channels, inner / PACK, low, high)
        : sum_part<1>(x, y, terms(channel), channel, channels, inner, low, high);
    sum.first = block_sum(sum.first, shared);
    sum.second = block_sum(sum.second, shared);
    if (threadIdx.x) return;
    first[blockIdx.x] = sum.first;
    second[blockIdx.x] = sum.second;
}

// Short rows: the arrays are `width` columns; a thread sums every ROWS'th element of a column's
// part.
template <class F>
__device__ inline void sum_columns(const real *x, const real *y, double *first, double *second,
                                   F terms, index_t outer, index_t width, index_t inner) {
    constexpr int ROWS = THREADS / 32;
    __shared__ Terms shared[ROWS][32];
    index_t column = (index_t)blockIdx.x * 32 + threadIdx.x;
    index_t length = (outer + gridDim.y - 1) / gridDim.y;
    index_t low = min(blockIdx.y * length, outer), high = min(low + length, outer);
    Terms sum = {0., 0.};
    if (column < width) {
        auto f = terms((unsigned)column / (unsigned)inner);
#pragma unroll 4
        for (index_t n = low + threadIdx.y; n < high; n += ROWS)
            sum.add(f(wide(x[n * width + column]), wide(y[n * width + column])));
    }
    shared[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y || column >= width) return;
    for (int k = 1; k < ROWS; k++) sum.add(shared[k][threadIdx.x]);
    first[blockIdx.y * width + column] = sum.first;
    second[blockIdx.y * width + column] = sum.second;
}

// With terms(c)(x, y) of all elements of channel c: in blocks of (THREADS) threads, on a grid of
// channels * parts, `sums` becomes (2, parts, channels); in blocks of (32, THREADS / 32), on a grid
// of (columns / 32, parts), it becomes (2, parts, channels * inner).
template <class F>
__device__ inline void sum_channels(const real *x, const real *y, double *sums, F terms,
                                    index_t outer, index_t channels, index_t inner,
                                    index_t parts) {
    index_t width = channels * inner;
    if (blockDim.y == 1)
        sum_rows(x, y, sums, sums + parts * channels, terms, outer, channels, inner, parts);
    else
        sum_columns(x, y, sums, sums + parts * width, terms, outer, width, inner);
}

KERNEL centred_sums(const real *x, const real *x_centre, const real *y, const real *y_centre,
                    double *sums, index_t outer, index_t channels, index_t inner, index_t parts) {
    auto terms = [=](unsigned c) { return Centred{wide(x_centre[c]), wide(y_centre[c])}; };
    sum_channels(x, y, sums, terms, outer, channels, inner, parts);
}

KERNEL slope_sums(const real *x, const real *dy, double *sums, index_t outer, index_t channels,
                  index_t inner, index_t parts) {
    auto terms = [](unsigned) { return Slopes(); };
    sum_channels(x, dy, sums, terms, outer, channels, inner, parts);
}

KERNEL totals(const real *x, double *sums, index_t outer, index_t channels, index_t inner,
              index_t parts) {
    auto terms = [](unsigned) { return Values(); };
    sum_channels(x, x, sums, terms, outer, channels, inner, parts);
}

// out (lists, channels) = the sums over parts and places of sums (lists, parts, channels, inner);
// a warp for each.
KERNEL fold(const double *sums, double *out, index_t lists, index_t parts, index_t channels,
            index_t inner) {
    index_t warp = thread_number() / 32, lane = threadIdx.x % 32;
    if (warp >= lists * channels) return;
    index_t list = warp / channels, channel = warp % channels;
    double whole = 0.;
    for (index_t k = lane; k < parts * inner; k += 32) {
        index_t part = k / inner, place = k % inner;
        whole += sums[((list * parts + part) * channels + channel) * inner + place];
    }
    whole = warp_sum(whole);
    if (lane == 0) out[warp] = whole;
}

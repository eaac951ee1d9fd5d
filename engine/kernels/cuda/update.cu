// Solver updates in one pass over parameter, gradient and history (update.py).
#include "elementwise.cuh"

// The gradient before the rule: scaled by both factors, regularisation added.
struct Gradient {
    acc clip, mean, decay;
    int l1;
    bool skip;

    // A factor in memory, if there is one, counts instead of `clip`; if it is NaN, nothing changes.
    __device__ Gradient(const double *factor, acc clip, acc mean, acc decay, int l1)
        : clip(factor ? (acc)*factor : clip), mean(mean), decay(decay), l1(l1),
          skip(factor && *factor != *factor) {}

    __device__ acc operator()(acc g, acc w) const {
        g = g * clip * mean;
        if (!l1) return g + decay * w;
        return g + decay * (w == w ? acc((w > 0) - (w < 0)) : w);
    }
};

#define GRADIENT const double *factor, acc clip, acc mean, acc decay, int l1
#define GIVEN factor, clip, mean, decay, l1

KERNEL sgd(real *data, real *diff, real *history, GRADIENT, acc rate, acc momentum, index_t n) {
    Gradient gradient(GIVEN);
    if (gradient.skip) return;
    change(n, [=](acc &w, acc &d, acc &h) {
        h = h * momentum + gradient(d, w) * rate;
        d = h;
        w -= d;
    }, data, diff, history);
}

KERNEL nesterov(real *data, real *diff, real *history, GRADIENT, acc rate, acc momentum,
                index_t n) {
    Gradient gradient(GIVEN);
    if (gradient.skip) return;
    change(n, [=](acc &w, acc &d, acc &h) {
        acc back = momentum * h;
        h = back + gradient(d, w) * rate;
        d = h * (1 + momentum) - back;
        w -= d;
    }, data, diff, history);
}

KERNEL adagrad(real *data, real *diff, real *history, GRADIENT, acc rate, acc delta, index_t n) {
    Gradient gradient(GIVEN);
    if (gradient.skip) return;
    change(n, [=](acc &w, acc &d, acc &h) {
        acc g = gradient(d, w);
        h += g * g;
        d = g / (sqrt(h) + delta) * rate;
        w -= d;
    }, data, diff, history);
}

KERNEL rmsprop(real *data, real *diff, real *history, GRADIENT, acc rate, acc rms_decay, acc delta,
               index_t n) {
    Gradient gradient(GIVEN);
    if (gradient.skip) return;
    change(n, [=](acc &w, acc &d, acc &h) {
        acc g = gradient(d, w);
        h = h * rms_decay + g * g * (1 - rms_decay);
        d = g / (sqrt(h) + delta) * rate;
        w -= d;
    }, data, diff, history);
}

KERNEL adadelta(real *data, real *diff, real *history, real *steps, GRADIENT, acc rate,
                acc momentum, acc delta, index_t n) {
    Gradient gradient(GIVEN);
    if (gradient.skip) return;
    change(n, [=](acc &w, acc &d, acc &h, acc &h2) {
        acc g = gradient(d, w);
        h = h * momentum + g * g * (1 - momentum);
        acc step = g * sqrt((h2 + delta) / (h + delta));
        h2 = h2 * momentum + step * step * (1 - momentum);
        d = step * rate;
        w -= d;
    }, data, diff, history, steps);
}

KERNEL adam(real *data, real *diff, real *first, real *second, GRADIENT, acc rate, acc momentum,
            acc momentum2, acc delta, index_t n) {
    Gradient gradient(GIVEN);
    if (gradient.skip) return;
    change(n, [=](acc &w, acc &d, acc &m, acc &v) {
        acc g = gradient(d, w);
        m = m * momentum + g * (1 - momentum);
        v = v * momentum2 + g * g * (1 - momentum2);
        d = m / (sqrt(v) + delta) * rate;
        w -= d;
    }, data, diff, first, second);
}

// sums[block] = the sum of squares of the block's part of x, in double precision.
KERNEL squares(const real *x, double *sums, index_t n) {
    __shared__ double shared[32];
    double whole = 0;
    index_t length = (n + gridDim.x - 1) / gridDim.x;
    index_t low = blockIdx.x * length, high = min(low + length, n);
#pragma unroll 8
    for (index_t i = low + threadIdx.x; i < high; i += THREADS)
        whole += (double)wide(x[i]) * (double)wide(x[i]);
    whole = block_sum(whole, shared);
    if (threadIdx.x == 0) sums[blockIdx.x] = whole;
}

// norm = the square root of the sum of `sums`, times `scale`; out = the factor that brings it down
// to `limit`, or NaN for a norm that is not finite if `skip`, and the norm. One block.
KERNEL clip(const double *sums, double *out, double limit, double scale, int skip, index_t count) {
    __shared__ double shared[32];
    double whole = 0;
    for (index_t i = threadIdx.x; i < count; i += THREADS) whole += sums[i];
    double norm = sqrt(block_sum(whole, shared)) * scale;
    if (threadIdx.x) return;
    bool bad = skip && !(norm < infinity());
    out[0] = bad ? not_a_number() : norm > limit ? limit / norm : 1.;
    out[1] = norm;
}

// Local response normalisation (lrn.py): y = x * s ** -beta, s = k + alpha * a sum of squares.
//
// Arrays are (outer, length, inner), and sums go over the `half` neighbours to either side along
// the middle axis: across channels that is all; within a channel the first sums, along rows, are
// summed again down the columns. A thread adds up its own window, in double precision.
#include "prelude.cuh"

#define KERNEL extern "C" __global__ void

struct Line {
    int length, inner, half;

    template <class F>
    __device__ double sum(index_t i, F f) const {
        int place = (int)((unsigned)i / (unsigned)inner % (unsigned)length);  // i is below 2^31
        int low = max(place - half, 0), high = min(place + half, length - 1);
        double total = 0;
        for (int k = low; k <= high; k++) total += f(i + (index_t)(k - place) * inner);
        return total;
    }
};

#define LINE int length, int inner, int half
#define EACH(i)                                                                            \
    for (index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;                \
         i += (index_t)gridDim.x * blockDim.x)

// The usual beta of 3/4 by square roots, which are quick; powers are not.
__device__ inline acc decay(acc s, acc beta) {
    acc root = sqrt(s);
    return beta == acc(0.75) ? 1 / (root * sqrt(root)) : pow(s, -beta);
}

struct Squares {  // of x
    const real *x;
    __device__ double operator()(index_t i) const {
        double v = wide(x[i]);
        return v * v;
    }
};

struct Values {
    const acc *values;
    __device__ double operator()(index_t i) const { return values[i]; }
};

KERNEL row_squares(const real *x, acc *out, LINE, index_t n) {
    EACH(i) out[i] = (acc)Line{length, inner, half}.sum(i, Squares{x});
}

KERNEL row_sums(const acc *values, acc *out, LINE, index_t n) {
    EACH(i) out[i] = (acc)Line{length, inner, half}.sum(i, Values{values});
}

template <class F>
__device__ inline void normalise(const real *x, F f, real *y, Line line, acc alpha, acc beta, acc k,
                                 index_t n) {
    EACH(i) narrow(wide(x[i]) * decay(k + alpha * (acc)line.sum(i, f), beta), y[i]);
}

KERNEL across_forward(const real *x, real *y, acc alpha, acc beta, acc k, LINE, index_t n) {
    normalise(x, Squares{x}, y, Line{length, inner, half}, alpha, beta, k, n);
}

KERNEL within_forward(const real *x, const acc *sums, real *y, acc alpha, acc beta, acc k, LINE,
                      index_t n) {
    normalise(x, Values{sums}, y, Line{length, inner, half}, alpha, beta, k, n);
}

// direct = dy * s ** -beta and ratio = dy * x * s ** (-beta - 1), of which dx is made.
template <class F>
__device__ inline void slopes(const real *x, const real *dy, F f, acc *direct, acc *ratio,
                              Line line, acc alpha, acc beta, acc k, index_t n) {
    EACH(i) {
        acc s = k + alpha * (acc)line.sum(i, f);
        acc d = wide(dy[i]) * decay(s, beta);
        direct[i] = d;
        ratio[i] = d * wide(x[i]) / s;
    }
}

KERNEL across_slopes(const real *x, const real *dy, acc *direct, acc *ratio, acc alpha, acc beta,
                     acc k, LINE, index_t n) {
    slopes(x, dy, Squares{x}, direct, ratio, Line{length, inner, half}, alpha, beta, k, n);
}

KERNEL within_slopes(const real *x, const real *dy, const acc *sums, acc *direct, acc *ratio,
                     acc alpha, acc beta, acc k, LINE, index_t n) {
    slopes(x, dy, Values{sums}, direct, ratio, Line{length, inner, half}, alpha, beta, k, n);
}

// dx = direct - 2 * alpha * beta * x * (the sum of the ratios); `direct` may be dx.
KERNEL finish(const real *x, const acc *direct, const acc *ratio, real *dx, acc mutual, LINE,
              index_t n) {
    EACH(i) {
        acc sum = (acc)Line{length, inner, half}.sum(i, Values{ratio});
        narrow(direct[i] - mutual * wide(x[i]) * sum, dx[i]);
    }
}

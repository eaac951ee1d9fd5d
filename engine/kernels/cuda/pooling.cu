// Pooling: maximum, average, stochastic (pooling.py). Images are (planes, H, W); elements of a
// plane are numbered h * W + w. A thread computes one result, also of the gradients: it looks for
// the windows that its element lies in, in their order, so that sums have one order.
#include "prelude.cuh"

constexpr double LOWEST = -3.4028234663852886e+38;  // an empty window's maximum, as in Caffe
constexpr float SMALLEST = 1.17549435e-38f;  // keeps a window of zeros from dividing by zero

// One axis: of image and result the size, of the window size, stride and padding.
struct Axis {
    int in, out, kernel, stride, pad;

    __device__ int begin(int p) const { return max(p * stride - pad, 0); }
    __device__ int end(int p) const { return min(p * stride - pad + kernel, in); }
    // What an average divides by: padding counts up to in + pad.
    __device__ int length(int p) const {
        int start = p * stride - pad;
        return min(start + kernel, in + pad) - start;
    }
    // The windows [first, last] that element h lies in.
    __device__ int first(int h) const {
        int room = h + pad - kernel;
        return room < 0 ? 0 : room / stride + 1;
    }
    __device__ int last(int h) const { return min((h + pad) / stride, out - 1); }
};

struct Pool {
    Axis down, across;

    __device__ int image() const { return down.in * across.in; }
    __device__ int windows() const { return down.out * across.out; }

    // f(number of the element) for each in window (p, q), line by line, until it says stop.
    template <class F>
    __device__ void in_window(int p, int q, F f) const {
        int left = across.begin(q), right = across.end(q), bottom = down.end(p);
        for (int h = down.begin(p); h < bottom; h++)
            for (int w = left; w < right; w++)
                if (f(h * across.in + w)) return;
    }

    // f(p, q) for each window that element (h, w) lies in.
    template <class F>
    __device__ void around(int h, int w, F f) const {
        int left = across.first(w), right = across.last(w), bottom = down.last(h);
        for (int p = down.first(h); p <= bottom; p++)
            for (int q = left; q <= right; q++) f(p, q);
    }

    __device__ bool is_empty(int p, int q) const {
        return down.end(p) <= down.begin(p) || across.end(q) <= across.begin(q);
    }
    __device__ acc length(int p, int q) const {
        // NOTE: Caffe divides an empty window by its length, zero or below: NaN or -0.
        return max(down.length(p) * across.length(q), 1);
    }
};

#define GEOMETRY                                                                          \
    int in_h, int in_w, int out_h, int out_w, int kernel_h, int kernel_w, int stride_h,   \
        int stride_w, int pad_h, int pad_w
#define POOL                                                                              \
    Pool pool = {{in_h, out_h, kernel_h, stride_h, pad_h},                                \
                 {in_w, out_w, kernel_w, stride_w, pad_w}}
#define KERNEL extern "C" __global__ void

// f(i, plane, p, q) for the results of this thread; there are fewer than 2^31.
template <class F>
__device__ inline void each(index_t n, int height, int width, F f) {
    unsigned threads = gridDim.x * blockDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += threads) {
        unsigned line = i / width;
        f((int)i, (int)(line / height), (int)(line % height), (int)(i % width));
    }
}

template <class F>
__device__ inline void each_window(Pool pool, index_t n, F f) {
    each(n, pool.down.out, pool.across.out, f);
}

template <class F>
__device__ inline void each_element(Pool pool, index_t n, F f) {
    each(n, pool.down.in, pool.across.in, f);
}

KERNEL max_forward(const real *x, real *y, int *argmax, GEOMETRY, index_t n) {
    POOL;
    each_window(pool, n, [=](int i, int plane, int p, int q) {
        const real *image = x + (index_t)plane * pool.image();
        acc best = (acc)LOWEST;
        int winner = -1;
        pool.in_window(p, q, [&](int k) {
            acc v = wide(image[k]);
            if (v > best) best = v, winner = k;
            return false;
        });
        narrow(best, y[i]);
        if (argmax) argmax[i] = winner;
    });
}

KERNEL max_backward(const real *dy, const int *argmax, const real *gate, real *dx, GEOMETRY,
                    index_t n) {
    POOL;
    each_element(pool, n, [=](int i, int plane, int h, int w) {
        index_t first = (index_t)plane * pool.windows();
        int self = h * pool.across.in + w;
        acc total = 0;
        pool.around(h, w, [&](int p, int q) {
            index_t k = first + p * pool.across.out + q;
            if (argmax[k] != self) return;
            acc d = wide(dy[k]);
            total += gate && !(wide(gate[k]) > 0) ? d * acc(0) : d;
        });
        narrow(total, dx[i]);
    });
}

KERNEL average_forward(const real *x, real *y, GEOMETRY, index_t n) {
    POOL;
    each_window(pool, n, [=](int i, int plane, int p, int q) {
        const real *image = x + (index_t)plane * pool.image();
        acc total = 0;
        pool.in_window(p, q, [&](int k) {
            total += wide(image[k]);
            return false;
        });
        narrow(total / pool.length(p, q), y[i]);
    });
}

// y = the mean of each plane: a block each.
KERNEL means(const real *x, real *y, int size) {
    __shared__ acc parts[32];
    const real *image = x + (index_t)blockIdx.x * size;
    acc total = 0;
    for (int k = threadIdx.x; k < size; k += blockDim.x) total += wide(image[k]);
    total = block_sum(total, parts);
    if (threadIdx.x == 0) narrow(total / size, y[blockIdx.x]);
}

KERNEL average_backward(const real *dy, real *dx, GEOMETRY, index_t n) {
    POOL;
    each_element(pool, n, [=](int i, int plane, int h, int w) {
        const real *slopes = dy + (index_t)plane * pool.windows();
        acc total = 0;
        pool.around(h, w, [&](int p, int q) {
            total += wide(slopes[p * pool.across.out + q]) / pool.length(p, q);
        });
        narrow(total, dx[i]);
    });
}

__device__ inline acc sum_of_window(Pool pool, const real *image, int p, int q) {
    acc total = 0;
    pool.in_window(p, q, [&](int k) {
        total += wide(image[k]);
        return false;
    });
    return total;
}

KERNEL stochastic_forward(const real *x, const real *chance, real *y, int *argmax, GEOMETRY,
                          index_t n) {
    POOL;
    each_window(pool, n, [=](int i, int plane, int p, int q) {
        const real *image = x + (index_t)plane * pool.image();
        acc share = wide(chance[i]) * sum_of_window(pool, image, p, q), total = 0, value = 0;
        int winner = -1;
        if (!pool.is_empty(p, q)) {
            winner = pool.down.begin(p) * pool.across.in + pool.across.begin(q);
            pool.in_window(p, q, [&](int k) {
                total += wide(image[k]);
                if (total >= share) winner = k;
                return total >= share;
            });
            value = wide(image[winner]);
        }
        narrow(value, y[i]);
        argmax[i] = winner;
    });
}

KERNEL expected_forward(const real *x, real *y, GEOMETRY, index_t n) {
    POOL;
    each_window(pool, n, [=](int i, int plane, int p, int q) {
        const real *image = x + (index_t)plane * pool.image();
        acc squares = 0;
        pool.in_window(p, q, [&](int k) {
            squares += wide(image[k]) * wide(image[k]);
            return false;
        });
        narrow(squares / (sum_of_window(pool, image, p, q) + (acc)SMALLEST), y[i]);
    });
}

KERNEL expected_backward(const real *x, const real *y, const real *dy, real *dx, GEOMETRY,
                         index_t n) {
    POOL;
    each_element(pool, n, [=](int i, int plane, int h, int w) {
        const real *image = x + (index_t)plane * pool.image();
        index_t first = (index_t)plane * pool.windows();
        acc twice = 2 * wide(x[i]), total = 0;
        pool.around(h, w, [&](int p, int q) {
            index_t k = first + p * pool.across.out + q;
            acc sum = sum_of_window(pool, image, p, q) + (acc)SMALLEST;
            total += (twice - wide(y[k])) * (wide(dy[k]) / sum);
        });
        narrow(total, dx[i]);
    });
}

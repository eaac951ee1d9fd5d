// Softmax along the middle axis of (outer, classes, inner) (softmax.py); outputs may be inputs.
#include "prelude.cuh"

constexpr int THREADS = 256;  // of a block

// Three ways through `classes` values: a warp or a block for each item where they are neighbours,
// a thread for each position where positions are.

struct Warp {
    static constexpr int COUNT = 32;
    __device__ int rank() const { return threadIdx.x % 32; }
    __device__ index_t item() const {
        return (index_t)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    }
    __device__ acc sum(acc v) const { return warp_sum(v); }
    __device__ acc max(acc v) const { return warp_max(v); }
};

struct Block {
    static constexpr int COUNT = THREADS;
    acc *parts;
    __device__ int rank() const { return threadIdx.x; }
    __device__ index_t item() const { return blockIdx.x; }
    __device__ acc sum(acc v) const { return block_sum(v, parts); }
    __device__ acc max(acc v) const { return block_max(v, parts); }
};

struct Thread {
    static constexpr int COUNT = 1;
    __device__ int rank() const { return 0; }
    __device__ index_t item() const { return (index_t)blockIdx.x * THREADS + threadIdx.x; }
    __device__ acc sum(acc v) const { return v; }
    __device__ acc max(acc v) const { return v; }
};

// Where the values of an item begin.
__device__ inline index_t start(index_t item, index_t classes, index_t inner) {
    return inner == 1 ? item * classes : item / inner * classes * inner + item % inner;
}

template <class Group>
__device__ inline void forward(Group group, const real *x, real *y, index_t items,
                               index_t classes, index_t inner) {
    if (group.item() >= items) return;
    index_t begin = start(group.item(), classes, inner);
    x += begin, y += begin;
    // NaN may get lost in the maximum; it comes back in the sum.
    acc most = -infinity(), total = 0;
#pragma unroll 4
    for (index_t c = group.rank(); c < classes; c += Group::COUNT) {
        acc v = wide(x[c * inner]);
        most = v > most ? v : most;
    }
    most = group.max(most);
#pragma unroll 4
    for (index_t c = group.rank(); c < classes; c += Group::COUNT)
        total += exp(wide(x[c * inner]) - most);
    acc share = 1 / group.sum(total);
#pragma unroll 4
    for (index_t c = group.rank(); c < classes; c += Group::COUNT)
        narrow(exp(wide(x[c * inner]) - most) * share, y[c * inner]);
}

template <class Group>
__device__ inline void backward(Group group, const real *y, const real *dy, real *dx,
                                index_t items, index_t classes, index_t inner) {
    if (group.item() >= items) return;
    index_t begin = start(group.item(), classes, inner);
    y += begin, dy += begin, dx += begin;
    acc dot = 0;
#pragma unroll 4
    for (index_t c = group.rank(); c < classes; c += Group::COUNT)
        dot += wide(y[c * inner]) * wide(dy[c * inner]);
    dot = group.sum(dot);
#pragma unroll 4
    for (index_t c = group.rank(); c < classes; c += Group::COUNT)
        narrow(wide(y[c * inner]) * (wide(dy[c * inner]) - dot), dx[c * inner]);
}

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

KERNEL forward_warp(const real *x, real *y, index_t items, index_t classes, index_t inner) {
    forward(Warp(), x, y, items, classes, inner);
}

KERNEL forward_block(const real *x, real *y, index_t items, index_t classes, index_t inner) {
    __shared__ acc parts[32];
    forward(Block{parts}, x, y, items, classes, inner);
}

KERNEL forward_thread(const real *x, real *y, index_t items, index_t classes, index_t inner) {
    forward(Thread(), x, y, items, classes, inner);
}

KERNEL backward_warp(const real *y, const real *dy, real *dx, index_t items, index_t classes,
                     index_t inner) {
    backward(Warp(), y, dy, dx, items, classes, inner);
}

KERNEL backward_block(const real *y, const real *dy, real *dx, index_t items, index_t classes,
                      index_t inner) {
    __shared__ acc parts[32];
    backward(Block{parts}, y, dy, dx, items, classes, inner);
}

KERNEL backward_thread(const real *y, const real *dy, real *dx, index_t items, index_t classes,
                       index_t inner) {
    backward(Thread(), y, dy, dx, items, classes, inner);
}

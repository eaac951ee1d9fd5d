// Copies between arrays, and blocks of them (copies.py). `real` is any type of an element's size.
#include "prelude.cuh"

constexpr int THREADS = 256;
constexpr int PACK = 16 / sizeof(real);
constexpr int LOADS = 4;

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

typedef Pack<real, PACK> Line;

__device__ inline index_t first_place() {
    return (index_t)blockIdx.x * THREADS * LOADS + threadIdx.x;
}

// `count` things of type T from each of `rows` rows; starts and widths are counted in things too.
template <class T>
__device__ inline void copy_things(const T *source, T *target, unsigned rows, unsigned count,
                                   unsigned source_width, unsigned target_width) {
    T values[LOADS];
    index_t all = (index_t)gridDim.x * THREADS * LOADS, things = (index_t)rows * count;
    for (index_t begin = first_place(); begin < things; begin += all) {
#pragma unroll
        for (int k = 0; k < LOADS; k++) {
            index_t i = begin + k * THREADS;
            unsigned row = (unsigned)i / count, column = (unsigned)i % count;
            if (i < things) values[k] = source[(index_t)row * source_width + column];
        }
#pragma unroll
        for (int k = 0; k < LOADS; k++) {
            index_t i = begin + k * THREADS;
            unsigned row = (unsigned)i / count, column = (unsigned)i % count;
            if (i < things) target[(index_t)row * target_width + column] = values[k];
        }
    }
}

KERNEL copy_columns(const void *from, void *to, index_t rows, index_t count, index_t source_start,
                    index_t source_width, index_t target_start, index_t target_width) {
    const real *source = (const real *)from + source_start;
    real *target = (real *)to + target_start;
    bool packed = packs_at<real, PACK>(source) && packs_at<real, PACK>(target) &&
                  count % PACK == 0 && source_width % PACK == 0 && target_width % PACK == 0;
    if (packed)
        copy_things((const Line *)source, (Line *)target, rows, count / PACK, source_width / PACK,
                    target_width / PACK);
    else
        copy_things(source, target, rows, count, source_width, target_width);
}

KERNEL copy(const void *from, void *to, index_t n) {
    const real *source = (const real *)from;
    real *target = (real *)to;
    index_t whole = packs_at<real, PACK>(source) && packs_at<real, PACK>(target) ? n / PACK : 0;
    if (whole) copy_things((const Line *)source, (Line *)target, 1, whole, 0, 0);
    index_t rest = n - whole * PACK;
    copy_things(source + whole * PACK, target + whole * PACK, 1, rest, 0, 0);
}

KERNEL clear(void *array, index_t n) {
    real *target = (real *)array;
    index_t whole = packs_at<real, PACK>(target) ? n / PACK : 0;
    index_t thread = (index_t)blockIdx.x * THREADS + threadIdx.x;
    for (index_t i = thread; i < whole; i += (index_t)gridDim.x * THREADS)
        ((Line *)target)[i] = Line();
    for (index_t i = whole * PACK + thread; i < n; i += (index_t)gridDim.x * THREADS)
        target[i] = real();
}

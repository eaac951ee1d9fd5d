// Passes over arrays: every element is read, computed and written once, in packs.
//
// A thread takes LOADS packs of each input before it computes, so that enough reads are under way
// at once to keep memory busy. Outputs may be inputs: a thread writes only what it alone has read.
// Where an array does not begin at a multiple of a pack, elements go one by one.
#include "prelude.cuh"

__device__ inline acc rectified(acc v) { return v > 0 ? v : v * acc(0) + acc(0); }

constexpr int PACK = 16 / sizeof(real);
constexpr int LOADS = 2;
constexpr int THREADS = 256;  // of a block: as in launch.py

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

// LOADS packs, THREADS apart, of an array; those from number `count` on do not exist.
template <class T>
struct Tile {
    Pack<T, PACK> packs[LOADS];

    __device__ Tile() {}
    __device__ Tile(const T *p, index_t first, index_t count) {
        const Pack<T, PACK> *from = (const Pack<T, PACK> *)p;
#pragma unroll
        for (int k = 0; k < LOADS; k++)
            if (first + k * THREADS < count) packs[k] = from[first + k * THREADS];
    }
    __device__ void store(T *p, index_t first, index_t count) const {
        Pack<T, PACK> *to = (Pack<T, PACK> *)p;
#pragma unroll
        for (int k = 0; k < LOADS; k++)
            if (first + k * THREADS < count) to[first + k * THREADS] = packs[k];
    }
};

template <class... T>
__device__ inline bool all_in_packs(const T *...p) {
    return (packs_at<T, PACK>(p) && ...);
}

__device__ inline index_t thread_number() { return (index_t)blockIdx.x * THREADS + threadIdx.x; }
__device__ inline index_t all_threads() { return (index_t)gridDim.x * THREADS; }
__device__ inline index_t first_pack() {
    return (index_t)blockIdx.x * THREADS * LOADS + threadIdx.x;
}

// A place in an array that nothing depends on.
struct Anywhere {
    __device__ void start(index_t) {}
    __device__ void next() {}
};

template <class At, class F, class... T>
__device__ inline void map_tile(index_t first, index_t count, real *out, At at, F f,
                                const Tile<T> &...in) {
    Tile<real> result;
#pragma unroll
    for (int k = 0; k < LOADS; k++) {
        if (first + k * THREADS >= count) break;
        at.start((first + k * THREADS) * PACK);
#pragma unroll
        for (int j = 0; j < PACK; j++) {
            narrow(f(at, wide(in.packs[k].v[j])...), result.packs[k].v[j]);
            at.next();
        }
    }
    result.store(out, first, count);
}

// out[i] = f(place of i, in[i]...), in `acc`; `at` is told where it is.
template <class At, class F, class... T>
__device__ inline void map_at(index_t n, real *out, At at, F f, const T *...in) {
    index_t count = all_in_packs(out, in...) ? n / PACK : 0, first = first_pack();
    if (first < count) map_tile(first, count, out, at, f, Tile<T>(in, first, count)...);
    for (index_t i = count * PACK + thread_number(); i < n; i += all_threads()) {
        at.start(i);
        narrow(f(at, wide(in[i])...), out[i]);
    }
}

template <class F>
struct OfValues {
    F f;
    template <class... V>
    __device__ acc operator()(Anywhere, V... v) const {
        return f(v...);
    }
};

// out[i] = f(in[i]...)
template <class F, class... T>
__device__ inline void map(index_t n, real *out, F f, const T *...in) {
    map_at(n, out, Anywhere(), OfValues<F>{f}, in...);
}

// A tile that is written back to where it was read.
template <class T>
struct Held {
    Tile<T> tile;
    T *p;
    index_t first, count;

    __device__ Held(T *p, index_t first, index_t count)
        : tile(p, first, count), p(p), first(first), count(count) {}
    __device__ void store() const { tile.store(p, first, count); }
};

template <class F, class... H>
__device__ inline void change_tiles(F f, H... held) {
#pragma unroll
    for (int k = 0; k < LOADS; k++)
#pragma unroll
        for (int j = 0; j < PACK; j++) f(held.tile.packs[k].v[j]...);
    (held.store(), ...);
}

// f(p[i]...), which changes them
template <class F, class... T>
__device__ inline void change(index_t n, F f, T *...p) {
    index_t count = all_in_packs(p...) ? n / PACK : 0, first = first_pack();
    if (first < count) change_tiles(f, Held<T>(p, first, count)...);
    for (index_t i = count * PACK + thread_number(); i < n; i += all_threads()) f(p[i]...);
}

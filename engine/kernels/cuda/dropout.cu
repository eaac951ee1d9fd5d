// Dropout by random numbers that are computed where they are used (dropout.py).
#include "prelude.cuh"

// A block does CHUNK elements, with LANE counters: counter j gives four numbers, for the places j,
// j + LANE, j + 2 LANE and j + 3 LANE of the chunk. A thread takes WIDTH neighbouring counters.
constexpr int LANE = 1024, CHUNK = 4 * LANE, WIDTH = 4, THREADS = LANE / WIDTH;

struct Four {
    unsigned v[4];
};

// Philox 4x32 with 10 rounds (Salmon et al. 2011).
__device__ inline Four philox(unsigned long long number, unsigned long long stream,
                              unsigned long long seed) {
    unsigned a = number, b = number >> 32, c = stream, d = stream >> 32;
    unsigned low = seed, high = seed >> 32;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        unsigned p = __umulhi(0xD2511F53u, a), p_low = 0xD2511F53u * a;
        unsigned q = __umulhi(0xCD9E8D57u, c), q_low = 0xCD9E8D57u * c;
        a = q ^ b ^ low, b = q_low, c = p ^ d ^ high, d = p_low;
        low += 0x9E3779B9u, high += 0xBB67AE85u;
    }
    return {{a, b, c, d}};
}

extern "C" __global__ void __launch_bounds__(THREADS)
apply(const real *x, real *out, unsigned long long seed, unsigned long long stream,
      unsigned long long threshold, acc scale, index_t n) {
    index_t begin = (index_t)blockIdx.x * CHUNK + threadIdx.x * WIDTH;
    bool packed = packs_at<real, WIDTH>(x) && packs_at<real, WIDTH>(out);
    Four numbers[WIDTH];
#pragma unroll
    for (int j = 0; j < WIDTH; j++)
        numbers[j] = philox((index_t)blockIdx.x * LANE + threadIdx.x * WIDTH + j, stream, seed);
#pragma unroll
    for (int lane = 0; lane < 4; lane++) {
        index_t place = begin + lane * LANE;
        Pack<real, WIDTH> values;
        bool whole = packed && place + WIDTH <= n;
        if (whole) values = *(const Pack<real, WIDTH> *)(x + place);
#pragma unroll
        for (int j = 0; j < WIDTH; j++) {
            if (!whole && place + j < n) values.v[j] = x[place + j];
            acc factor = numbers[j].v[lane] >= threshold ? scale : acc(0);
            narrow(wide(values.v[j]) * factor, values.v[j]);
            if (!whole && place + j < n) out[place + j] = values.v[j];
        }
        if (whole) *(Pack<real, WIDTH> *)(out + place) = values;
    }
}

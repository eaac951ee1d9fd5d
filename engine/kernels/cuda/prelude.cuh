// What the kernels have in common: numbers, packs of them, sums over warps and blocks.
//
// `real` is what arrays hold (REAL, a macro), `acc` what is computed with: halves are float there.
#pragma once

// ---- halves, as their bits

#ifdef HOST_SHIM
inline float widened(unsigned short bits) {
    unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, rest = bits & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | rest << 13);
    float value = ldexpf(exponent ? rest + 1024 : rest, (exponent ? (int)exponent : 1) - 25);
    return __uint_as_float(__float_as_uint(value) | sign);
}
inline unsigned short narrowed(float v) {
    unsigned bits = __float_as_uint(v), sign = bits >> 16 & 0x8000u;
    float size = fabsf(v);
    if (size != size) return sign | 0x7fff;
    if (size >= 65520.f) return sign | 0x7c00;
    if (size < 6.103515625e-05f) return sign | (unsigned)rintf(size * 16777216.f);  // * 2^24
    unsigned whole = __float_as_uint(size);
    return sign | (whole + 0xfff + (whole >> 13 & 1) - (112u << 23)) >> 13;
}
#else
__device__ inline float widened(unsigned short bits) {
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}
__device__ inline unsigned short narrowed(float v) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
}
#endif

struct half_t {  // IEEE 754 binary16
    unsigned short bits;
};
struct bfloat_t {  // the upper half of a float
    unsigned short bits;
};

__device__ inline float wide(float v) { return v; }
__device__ inline double wide(double v) { return v; }
__device__ inline float wide(half_t v) { return widened(v.bits); }
__device__ inline float wide(bfloat_t v) { return __uint_as_float((unsigned)v.bits << 16); }
__device__ inline int wide(int v) { return v; }

__device__ inline void narrow(float v, float &out) { out = v; }
__device__ inline void narrow(double v, double &out) { out = v; }
__device__ inline void narrow(float v, half_t &out) { out.bits = narrowed(v); }
__device__ inline void narrow(float v, bfloat_t &out) {
    unsigned bits = __float_as_uint(v);
    // To the nearest, to even from halfway; NaN stays NaN.
    out.bits = v == v ? (bits + 0x7fff + (bits >> 16 & 1)) >> 16 : 0x7fff;
}

template <class T> struct Computed { typedef T type; };
template <> struct Computed<half_t> { typedef float type; };
template <> struct Computed<bfloat_t> { typedef float type; };

#ifdef REAL
typedef REAL real;
typedef Computed<real>::type acc;
#endif

#ifdef HOST_SHIM
namespace shim {
SHIM_KIND(half_t, "f2")
}
#endif

typedef long long index_t;

__device__ inline float infinity() { return __int_as_float(0x7f800000); }
__device__ inline float not_a_number() { return __int_as_float(0x7fffffff); }

// ---- packs: as many neighbours as one access to memory takes, 16 bytes of `real`

template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
    T v[N];
};

template <class T, int N>
__device__ inline bool packs_at(const T *p) {
    return (unsigned long long)p % alignof(Pack<T, N>) == 0;
}

// ---- sums and maxima over a warp: every lane has the result, in an order that is always the same

template <class T>
__device__ inline T warp_sum(T v) {
    for (int step = 16; step; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, step);
    return v;
}

template <class T>
__device__ inline T warp_max(T v) {  // NaN may be lost
    for (int step = 16; step; step /= 2) {
        T other = __shfl_xor_sync(0xffffffffu, v, step);
        v = other > v ? other : v;
    }
    return v;
}

// ---- and over a block of whole warps in one dimension, `parts` being shared memory for 32

template <class T>
__device__ inline T block_sum(T v, T *parts) {
    v = warp_sum(v);
    __syncthreads();  // what was read of `parts` before has been read
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    T whole = 0;
    for (unsigned k = 0; k < blockDim.x / 32; k++) whole += parts[k];
    return whole;
}

template <class T>
__device__ inline T block_max(T v, T *parts) {
    v = warp_max(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = v;
    __syncthreads();
    T most = parts[0];
    for (unsigned k = 1; k < blockDim.x / 32; k++) most = parts[k] > most ? parts[k] : most;
    return most;
}

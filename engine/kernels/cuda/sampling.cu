// A random sample of the boxes to learn from (sampling.py): what boxes/sampling.py chooses, by the
// same numbers, those of NumPy's Generator(Philox).choice. tests/cuda compares the two.
//
// Philox 4x64 (Salmon et al. 2011) with 10 rounds gives numbers of 64 bits. NumPy takes their lower
// half, then their upper one, and brings them below a bound by Lemire's method.
#include "prelude.cuh"
#include "flags.cuh"

constexpr int PER_BLOCK = 8;  // numbers of 32 bits that one counter gives
constexpr int LANES = 1024;   // threads of `sample`
constexpr int SHUFFLED_FROM = 10000, SHUFFLED_PART = 20;  // see numpy.random.Generator.choice

__device__ inline void philox(word_t counter, word_t seed, word_t stream, unsigned *out) {
    word_t a = counter + 1, b = 0, c = 0, d = 0;  // NumPy counts before it draws
    for (int k = 0; k < 10; k++) {
        word_t high = __umul64hi(0xD2E7470EE14C6C93ull, a), low = 0xD2E7470EE14C6C93ull * a;
        word_t other = __umul64hi(0xCA5A826395121157ull, c), rest = 0xCA5A826395121157ull * c;
        a = other ^ b ^ seed, b = rest, c = high ^ d ^ stream, d = low;
        seed += 0x9E3779B97F4A7C15ull, stream += 0xBB67AE8584CAA73Bull;
    }
    word_t words[] = {a, b, c, d};
    for (int k = 0; k < 4; k++) {
        out[2 * k] = (unsigned)words[k];
        out[2 * k + 1] = (unsigned)(words[k] >> 32);
    }
}

struct Draws {
    word_t seed, stream;
    const unsigned *ready;  // the first numbers, drawn by all threads at once
    int ready_count, next;

    __device__ unsigned number() {
        int k = next++;
        if (k < ready_count) return ready[k];
        unsigned own[PER_BLOCK];
        philox(k / PER_BLOCK, seed, stream, own);
        return own[k % PER_BLOCK];
    }

    // A whole number from 0 to `last`.
    __device__ int up_to(unsigned last) {
        if (last == 0) return 0;
        unsigned bound = last + 1;
        word_t product = (word_t)number() * bound;
        if ((unsigned)product < bound) {
            unsigned threshold = (0xffffffffu - last) % bound;
            while ((unsigned)product < threshold) product = (word_t)number() * bound;
        }
        return (int)(product >> 32);
    }
};

struct Bits {
    unsigned *words;

    __device__ bool has(int k) const { return words[k / 32] >> k % 32 & 1; }
    __device__ void set(int k) { words[k / 32] |= 1u << k % 32; }
};

// Set `count` of the bits 0 to n - 1, fewer than n. line: room for n numbers where NumPy shuffles.
__device__ inline void choose(Draws &draws, int n, int count, Bits chosen, int *line) {
    if (n > SHUFFLED_FROM && count > n / SHUFFLED_PART) {
        for (int k = 0; k < n; k++) line[k] = k;
        for (int k = n - 1; k >= n - count; k--) {
            int other = draws.up_to(k), value = line[other];
            line[other] = line[k];
            chosen.set(value);
        }
        return;
    }
    for (int last = n - count; last < n; last++) {  // Floyd's method
        int value = draws.up_to(last);
        chosen.set(chosen.has(value) ? last : value);
    }
}

// The sum of `value` over the threads before this one, and over all. Both halves are numbers.
__device__ inline word_t sum_before(word_t value, word_t *parts, word_t *all) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    word_t sum = value;
    for (int step = 1; step < 32; step *= 2) {
        word_t other = __shfl_up_sync(0xffffffffu, sum, step);
        if (lane >= step) sum += other;
    }
    __syncthreads();  // what was read of `parts` before has been read
    if (lane == 31) parts[warp] = sum;
    __syncthreads();
    word_t before = 0, total = 0;
    for (int k = 0; k < LANES / 32; k++) {
        if (k < warp) before += parts[k];
        total += parts[k];
    }
    *all = total;
    return before + sum - value;
}

__device__ inline word_t both(int flag) {
    return (word_t)(flag & FOREGROUND ? 1 : 0) | (word_t)(flag & BACKGROUND ? 1 : 0) << 32;
}

// Of the flags (n,) `count` are left, at most `most` of them foreground;
// kept: their places, ascending, foreground first; found: how many there are of either. One block.
// scratch: `ready` numbers, two sets of n bits, and room for n numbers if NumPy may shuffle.
extern "C" __global__ void __launch_bounds__(LANES)
    sample(flags_t *flags, int *kept, int *found, unsigned *scratch, int n, int count, int most,
           int ready, word_t seed, word_t stream) {
    __shared__ word_t parts[LANES / 32];
    int words = (n + 31) / 32, t = threadIdx.x, share = (n + LANES - 1) / LANES;
    int low = min(t * share, n), high = min(low + share, n);
    Bits sets[] = {{scratch + ready}, {scratch + ready + words}};
    for (int k = t; k < ready / PER_BLOCK; k += LANES)
        philox(k, seed, stream, scratch + PER_BLOCK * k);
    for (int k = t; k < 2 * words; k += LANES) sets[0].words[k] = 0;

    word_t own = 0, all;
    for (int i = low; i < high; i++) own += both(flags[i]);
    word_t rank = sum_before(own, parts, &all);
    int foreground = (int)(unsigned)all, background = (int)(all >> 32);
    int wanted = min(foreground, min(count, most)), rest = min(background, count - wanted);
    __syncthreads();
    if (t == 0) {
        Draws draws = {seed, stream, scratch, ready, 0};
        int *line = (int *)(scratch + ready + 2 * words);
        if (wanted < foreground) choose(draws, foreground, wanted, sets[0], line);
        if (rest < background) choose(draws, background, rest, sets[1], line);
        found[0] = wanted, found[1] = rest;
    }
    __syncthreads();

    // What is left of the flags, then where it goes.
    int place[] = {(int)(unsigned)rank, (int)(rank >> 32)};
    own = 0;
    for (int i = low; i < high; i++) {
        int flag = flags[i], left = 0;
        if (flag & FOREGROUND) {
            if (wanted == foreground || sets[0].has(place[0])) left |= FOREGROUND;
            place[0]++;
        }
        if (flag & BACKGROUND) {
            if (rest == background || sets[1].has(place[1])) left |= BACKGROUND;
            place[1]++;
        }
        flags[i] = left;
        own += both(left);
    }
    rank = sum_before(own, parts, &all);
    int first = (int)(unsigned)rank, second = wanted + (int)(rank >> 32);
    for (int i = low; i < high; i++) {
        if (flags[i] & FOREGROUND) kept[first++] = i;
        if (flags[i] & BACKGROUND) kept[second++] = i;
    }
}

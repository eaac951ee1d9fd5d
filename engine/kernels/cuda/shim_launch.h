// Running the threads of a launch, and what they meet at (see shim.h).
#pragma once

namespace shim {

enum State { READY, AT_BLOCK, AT_WARP, DONE };

struct Fiber {
    ucontext_t start;
    jmp_buf place;
    char *stack;
    bool begun = false;
};

struct Thread {
    State state = READY;
    unsigned mask = 0;          // of the lanes that it waits for
    Fiber *fiber = nullptr;     // where it waits
    int turn = 0;               // which of its two slots the next exchange uses
    unsigned long long slot[2];  // what it shows to others
};

struct Launch {
    void (*body)(void **) = nullptr;
    void **arguments = nullptr;
    std::vector<Thread> threads;
    std::vector<Fiber *> idle;
    std::vector<char> shared;
    unsigned next = 0;     // how many threads of the block have begun
    unsigned current = 0;  // the number of the one that runs
    bool backwards = false;
    Fiber *active = nullptr;
    jmp_buf scheduler;
};
static Launch run;

constexpr size_t STACK = 128 << 10;
constexpr int DIVERGED = 1;

inline void enter(unsigned thread) {
    run.current = thread;
    unsigned row = thread / blockDim.x;
    threadIdx = {thread % blockDim.x, row % blockDim.y, row / blockDim.y};
}

inline void leave() {  // to the scheduler, which may come back
    Fiber *fiber = run.active;
    if (!_setjmp(fiber->place)) _longjmp(run.scheduler, 1);
}

inline void fiber_main() {
    for (;;) {
        while (run.next < run.threads.size()) {
            unsigned begun = run.next++, count = run.threads.size();
            enter(run.backwards ? count - 1 - begun : begun);
            run.body(run.arguments);
            run.threads[run.current].state = DONE;
        }
        run.idle.push_back(run.active);
        leave();
    }
}

inline Fiber *new_fiber() {
    Fiber *fiber = new Fiber;
    fiber->stack = (char *)malloc(STACK);
    getcontext(&fiber->start);
    fiber->start.uc_stack.ss_sp = fiber->stack;
    fiber->start.uc_stack.ss_size = STACK;
    fiber->start.uc_link = nullptr;
    makecontext(&fiber->start, fiber_main, 0);
    return fiber;
}

__attribute__((noinline)) inline void resume(Fiber *fiber) {
    if (_setjmp(run.scheduler)) return;
    run.active = fiber;
    if (fiber->begun) _longjmp(fiber->place, 1);
    fiber->begun = true;
    setcontext(&fiber->start);
}

inline void wait_at(State place, unsigned mask) {
    Thread &self = run.threads[run.current];
    self.state = place;
    self.mask = mask;
    self.fiber = run.active;
    leave();
}

// Whether all threads of a warp that a mask names wait at this barrier of the warp.
inline bool warp_has_come(size_t first, unsigned mask) {
    for (size_t lane = 0; lane < 32 && first + lane < run.threads.size(); lane++) {
        const Thread &other = run.threads[first + lane];
        if (mask >> lane & 1 && !(other.state == AT_WARP && other.mask == mask)) return false;
    }
    return true;
}

inline bool release() {
    bool any = false, block = true;
    std::vector<size_t> freed;
    for (size_t k = 0; k < run.threads.size(); k++) {
        const Thread &t = run.threads[k];
        block = block && t.state == AT_BLOCK;
        if (t.state == AT_WARP && t.mask >> k % 32 & 1 && warp_has_come(k / 32 * 32, t.mask))
            freed.push_back(k);
    }
    for (size_t k : freed) run.threads[k].state = READY;
    if (block)
        for (Thread &t : run.threads) t.state = READY;
    any = block || !freed.empty();
    return any;
}

inline int run_block(size_t count) {
    run.threads.assign(count, Thread());
    run.next = 0;
    memset(run.shared.data(), 0xff, run.shared.size());  // NaN, so that reading it unset shows
    while (run.next < count) {
        if (run.idle.empty()) run.idle.push_back(new_fiber());
        Fiber *fiber = run.idle.back();
        run.idle.pop_back();
        resume(fiber);
    }
    for (;;) {
        bool all_done = true;
        for (const Thread &t : run.threads) all_done = all_done && t.state == DONE;
        if (all_done) return 0;
        if (!release()) {
            run.idle.clear();  // those that wait can never be used again
            return DIVERGED;
        }
        for (size_t i = 0; i < count; i++) {
            size_t k = run.backwards ? count - 1 - i : i;
            if (run.threads[k].state != READY) continue;
            enter(k);
            resume(run.threads[k].fiber);
        }
    }
}

inline int launch(void (*body)(void **), const unsigned *grid, const unsigned *block,
                  size_t shared, bool backwards, void **arguments) {
    gridDim = dim3(grid[0], grid[1], grid[2]);
    blockDim = dim3(block[0], block[1], block[2]);
    run.body = body;
    run.arguments = arguments;
    run.backwards = backwards;
    run.shared.resize(shared + 16);
    size_t blocks = (size_t)grid[0] * grid[1] * grid[2];
    for (size_t i = 0; i < blocks; i++) {
        size_t k = backwards ? blocks - 1 - i : i, row = k / grid[0];
        blockIdx = {unsigned(k % grid[0]), unsigned(row % grid[1]), unsigned(row / grid[1])};
        int failure = run_block((size_t)block[0] * block[1] * block[2]);
        if (failure) return failure;
    }
    return 0;
}

template <class T>
T *dynamic_shared() {
    return (T *)(((uintptr_t)run.shared.data() + 15) / 16 * 16);
}

// ---- barriers and exchanges

template <class T>
unsigned long long bits_of(T value) {
    static_assert(sizeof(T) <= 8, "at most 8 bytes are exchanged");
    unsigned long long bits = 0;
    memcpy(&bits, &value, sizeof(T));
    return bits;
}

// Show a value to others at a barrier; says which of their slots to read after it.
template <class T>
int show(State place, unsigned mask, T value) {
    Thread &self = run.threads[run.current];
    int turn = self.turn;
    self.slot[turn] = bits_of(value);
    self.turn = 1 - turn;  // the next exchange must not overwrite what others have yet to read
    wait_at(place, mask);
    return turn;
}

template <class T>
T seen(size_t thread, int turn) {
    T value;
    memcpy(&value, &run.threads[thread].slot[turn], sizeof(T));
    return value;
}

template <class T>
T from_lane(unsigned mask, T value, int lane) {  // of the own warp; its own value if outside
    size_t self = run.current, first = self / 32 * 32;
    int turn = show(AT_WARP, mask, value);
    bool inside = lane >= 0 && lane < 32 && first + lane < run.threads.size();
    return inside ? seen<T>(first + lane, turn) : value;
}

inline unsigned ballot(unsigned mask, bool vote) {
    size_t first = run.current / 32 * 32;
    int turn = show(AT_WARP, mask, vote);
    unsigned votes = 0;
    for (unsigned lane = 0; lane < 32 && first + lane < run.threads.size(); lane++)
        if (mask >> lane & 1) votes |= unsigned(seen<bool>(first + lane, turn)) << lane;
    return votes;
}

inline int block_votes(bool vote) {
    int turn = show(AT_BLOCK, 0, vote), votes = 0;
    for (size_t k = 0; k < run.threads.size(); k++) votes += seen<bool>(k, turn);
    return votes;
}

inline int lane() { return run.current % 32; }

}  // namespace shim

inline void __syncthreads() { shim::wait_at(shim::AT_BLOCK, 0); }
inline int __syncthreads_count(int vote) { return shim::block_votes(vote != 0); }
inline int __syncthreads_or(int vote) { return shim::block_votes(vote != 0) > 0; }
inline int __syncthreads_and(int vote) { return shim::block_votes(vote == 0) == 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { shim::wait_at(shim::AT_WARP, mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

inline unsigned __ballot_sync(unsigned mask, int vote) { return shim::ballot(mask, vote != 0); }
inline int __any_sync(unsigned mask, int vote) { return shim::ballot(mask, vote != 0) != 0; }
inline int __all_sync(unsigned mask, int vote) { return shim::ballot(mask, vote == 0) == 0; }

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    return shim::from_lane(mask, value, shim::lane() / width * width + lane % width);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int lane = shim::lane() + delta;
    return shim::from_lane(mask, value, lane / width == shim::lane() / width ? lane : -1);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
    int own = shim::lane(), low = own / width * width;
    return shim::from_lane(mask, value, own - (int)delta >= low ? own - (int)delta : -1);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    int lane = shim::lane() ^ bits;
    return shim::from_lane(mask, value, lane / width == shim::lane() / width ? lane : -1);
}

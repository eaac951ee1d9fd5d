// CUDA C++ as host C++: the words of the language, and a scheduler that runs a launch.
//
// The words are here and in shim_functions.h, the scheduler is in shim_launch.h, and what says of a
// kernel which parameters it has is in shim_parameters.h.
//
// One host thread runs a launch block by block and, in a block, thread by thread. A thread that
// comes to a barrier is left where it is, on a stack of its own, until all have come there; a kernel
// without barriers never leaves the first stack. Shared memory is static, so one launch runs at a
// time. Not here: streams, textures, cooperative groups, and what only headers of CUDA declare.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <utility>
#include <vector>

#define HOST_SHIM 1
#define __global__ SHIM_KERNEL  // a mark that host.py looks for; then it is nothing
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __shared__ static
#define __constant__ static
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __grid_constant__

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

#include "shim_launch.h"
#include "shim_parameters.h"
#include "shim_functions.h"

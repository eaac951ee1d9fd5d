// Between an image with channels first (real) and one with channels last (WORK, a macro: what a
// convolution computes with), which may be larger: what lies outside of the image is 0 there.
#include "prelude.cuh"

typedef WORK work;
const int TILE = 32, ROWS = 8;  // a block is of TILE x ROWS threads

// last (images, out_height, out_width, channels) = x (images, channels, height, width)
extern "C" __global__ void to_last(const real *__restrict__ x, work *__restrict__ last,
                                   int channels, int height, int width, int out_height,
                                   int out_width) {
    __shared__ float tile[TILE][TILE + 1];
    index_t positions = (index_t)out_height * out_width;
    index_t first = (index_t)blockIdx.x * TILE, image = blockIdx.z;
    int channel = blockIdx.y * TILE;
    index_t place = first + threadIdx.x;
    int row = place / out_width, column = place % out_width;
    bool inside = row < height && column < width;
    for (int k = threadIdx.y; k < TILE; k += ROWS) {
        float value = 0;
        if (inside && channel + k < channels)
            value = wide(x[((image * channels + channel + k) * height + row) * width + column]);
        tile[k][threadIdx.x] = value;
    }
    __syncthreads();
    int own = channel + threadIdx.x;
    for (int k = threadIdx.y; k < TILE; k += ROWS)
        if (first + k < positions && own < channels)
            narrow(tile[threadIdx.x][k], last[(image * positions + first + k) * channels + own]);
}

// y (images, channels, height, width) = last (images, in_height, in_width, channels), plus bias; the
// larger of that and 0; or where gate (like y) is not positive, 0. flags: 1 a bias, 2 a ReLU, 4 a gate.
extern "C" __global__ void to_first(const work *__restrict__ last, const real *__restrict__ bias,
                                    const real *gate, real *y, int channels, int height, int width,
                                    int in_height, int in_width, int flags) {
    __shared__ float tile[TILE][TILE + 1];
    index_t positions = (index_t)height * width;
    index_t first = (index_t)blockIdx.x * TILE, image = blockIdx.z;
    int channel = blockIdx.y * TILE, own = channel + threadIdx.x;
    for (int k = threadIdx.y; k < TILE; k += ROWS) {
        index_t place = first + k;
        if (place < positions && own < channels) {
            index_t row = place / width, column = place % width;
            tile[k][threadIdx.x] = wide(last[((image * in_height + row) * in_width + column) * channels + own]);
        }
    }
    __syncthreads();
    index_t place = first + threadIdx.x;
    for (int k = threadIdx.y; k < TILE; k += ROWS) {
        if (place >= positions || channel + k >= channels) continue;
        float value = tile[threadIdx.x][k];
        index_t target = (image * channels + channel + k) * positions + place;
        if (flags & 1) value += wide(bias[channel + k]);
        if (flags & 2) value = value > 0 ? value : value * 0 + 0;
        if (flags & 4) value = wide(gate[target]) > 0 ? value : value * 0;
        narrow(value, y[target]);
    }
}

// y (planes, count) with a bias for each of `channels`, a ReLU or a gate, in place; flags as above.
extern "C" __global__ void settle(real *y, const real *bias, const real *gate, int channels,
                                  index_t planes, index_t count, int flags) {
    index_t place = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= count) return;
    for (index_t plane = blockIdx.y; plane < planes; plane += gridDim.y) {
        index_t target = plane * count + place;
        float value = wide(y[target]);
        if (flags & 1) value += wide(bias[plane % channels]);
        if (flags & 2) value = value > 0 ? value : value * 0 + 0;
        if (flags & 4) value = wide(gate[target]) > 0 ? value : value * 0;
        narrow(value, y[target]);
    }
}

// out = x, element by element, in the other number
extern "C" __global__ void convert(const real *__restrict__ x, work *__restrict__ out, index_t count) {
    index_t step = (index_t)gridDim.x * blockDim.x;
    for (index_t k = (index_t)blockIdx.x * blockDim.x + threadIdx.x; k < count; k += step)
        narrow((float)wide(x[k]), out[k]);
}

// y += x
extern "C" __global__ void add_to(const work *__restrict__ x, real *__restrict__ y, index_t count) {
    index_t step = (index_t)gridDim.x * blockDim.x;
    for (index_t k = (index_t)blockIdx.x * blockDim.x + threadIdx.x; k < count; k += step)
        narrow((float)(wide(y[k]) + wide(x[k])), y[k]);
}

// x = what the other number keeps of it
extern "C" __global__ void round_to(const real *__restrict__ x, real *__restrict__ out, index_t count) {
    index_t step = (index_t)gridDim.x * blockDim.x;
    for (index_t k = (index_t)blockIdx.x * blockDim.x + threadIdx.x; k < count; k += step) {
        work kept;
        narrow((float)wide(x[k]), kept);
        narrow(wide(kept), out[k]);
    }
}

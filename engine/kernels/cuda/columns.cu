// Columns: what each weight of a convolution meets, and back. AXES (a macro) spatial axes.
#include "prelude.cuh"

struct Axis {
    int in, out, kernel, stride, pad, dilation;
};

// One thread a position of a row: col (rows, images, count) = what x (images, channels, inputs)
// has there, 0 in the padding. Row (c, k) is window position k of channel c.
extern "C" __global__ void gather(const real *__restrict__ x, const Axis *__restrict__ axes,
                                  real *__restrict__ col, int channels, int window, index_t inputs,
                                  int images, index_t first, index_t count) {
    index_t place = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= count) return;
    index_t rows = (index_t)channels * window;
    for (index_t line = blockIdx.y; line < rows * images; line += gridDim.y) {
        index_t row = line / images, image = line % images, rest = first + place;
        index_t source = 0, step = 1;
        int k = row % window;
        bool inside = true;
        for (int a = AXES - 1; a >= 0; a--) {
            const Axis axis = axes[a];
            index_t at = rest % axis.out * axis.stride - axis.pad + (index_t)(k % axis.kernel) * axis.dilation;
            inside = inside && at >= 0 && at < axis.in;
            source += at * step;
            step *= axis.in;
            rest /= axis.out;
            k /= axis.kernel;
        }
        real value = {};
        if (inside) value = x[(image * channels + row / window) * inputs + source];
        col[line * count + place] = value;
    }
}

// The transpose of `gather`: x += the columns at the places they would be taken from. One thread an
// element of x, which adds its columns in the order of the window positions.
extern "C" __global__ void scatter(const real *__restrict__ col, const Axis *__restrict__ axes,
                                   real *__restrict__ x, int channels, int window, index_t inputs,
                                   int images, index_t first, index_t count) {
    index_t place = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= inputs) return;
    for (index_t plane = blockIdx.y; plane < (index_t)images * channels; plane += gridDim.y) {
        index_t image = plane / channels, channel = plane % channels;
        acc sum = wide(x[plane * inputs + place]);
        for (int window_place = 0; window_place < window; window_place++) {
            index_t rest = place, target = 0, step = 1;
            int k = window_place;
            bool inside = true;
            for (int a = AXES - 1; a >= 0; a--) {
                const Axis axis = axes[a];
                index_t at = rest % axis.in + axis.pad - (index_t)(k % axis.kernel) * axis.dilation;
                inside = inside && at >= 0 && at % axis.stride == 0 && at / axis.stride < axis.out;
                target += at / axis.stride * step;
                step *= axis.out;
                rest /= axis.in;
                k /= axis.kernel;
            }
            target -= first;
            if (inside && target >= 0 && target < count)
                sum += wide(col[((channel * window + window_place) * images + image) * count + target]);
        }
        narrow(sum, x[plane * inputs + place]);
    }
}

// y[image, channel, first + p] = sums[channel, image, p] + bias[channel], or the larger of that and
// 0. `sums` may be y itself, of one image with all its positions. flags: 1 a bias, 2 a ReLU.
extern "C" __global__ void finish(const real *sums, const real *bias, real *y, int channels,
                                  int images, index_t positions, index_t first, index_t count,
                                  int flags) {
    index_t place = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (place >= count) return;
    for (index_t line = blockIdx.y; line < (index_t)channels * images; line += gridDim.y) {
        index_t channel = line / images, image = line % images;
        acc value = wide(sums[line * count + place]);
        if (flags & 1) value += wide(bias[channel]);
        if (flags & 2) value = value > 0 ? value : value * 0 + 0;  // NaN stays NaN
        narrow(value, y[(image * channels + channel) * positions + first + place]);
    }
}

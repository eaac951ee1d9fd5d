// RoI pooling (roi_pooling.py): the maximum over the bins of each region of interest.
#include "prelude.cuh"

#define KERNEL extern "C" __global__ void

constexpr double LOWEST = -3.4028234663852886e+38;  // a window without numbers, as in pooling.cu
constexpr acc FAR = acc(1 << 30);  // no map is that large

// ---- the geometry (kernels/geometry.py: roi_corners, roi_bins), in the RoIs' own precision

__device__ inline bool is_finite(acc v) { return v - v == 0; }

__device__ inline acc round_half_away(acc v) {
    acc whole = trunc(v);
    return fabs(v - whole) >= acc(0.5) ? whole + (v < 0 ? acc(-1) : acc(1)) : whole;
}

struct Roi {
    acc image;
    bool finite;
    int x1, y1, x2, y2;  // on the map, ends included

    __device__ Roi(const real *roi, acc scale) : image(wide(roi[0])), finite(is_finite(image)) {
        x1 = corner(wide(roi[1]), scale);
        y1 = corner(wide(roi[2]), scale);
        x2 = corner(wide(roi[3]), scale);
        y2 = corner(wide(roi[4]), scale);
    }

    __device__ int corner(acc v, acc scale) {
        finite = finite && is_finite(v);
        return (int)max(min(round_half_away(v * scale), FAR), -FAR);
    }

    __device__ bool is_good(int images) const { return finite && image >= 0 && image < images; }
    __device__ bool is_formed() const { return x1 <= x2 && y1 <= y2; }
};

struct Bin {
    int begin, end;
};

// Bin number `place` of `pooled` along an axis of the map: clipped, empty where it lies outside.
__device__ inline Bin bin(int first, int last, int place, int pooled, int size) {
    long long begin = first, length = (long long)last - first + 1;
    // A malformed RoI (end before begin) counts as one pixel.
    acc step = (acc)(length < 1 ? 1 : length) / (acc)pooled;
    long long low = (long long)floor((acc)place * step) + begin;
    long long high = (long long)ceil((acc)(place + 1) * step) + begin;
    long long end = size;
    return {(int)min(max(low, 0ll), end), (int)min(max(high, 0ll), end)};
}

// images[r] = the image that RoI r sends its gradient to, -1 if it ends before it begins.
// NOTE: Caffe pools such a RoI as one pixel, but gives this pixel no gradient; so do we.
KERNEL roi_images(const real *rois, int *images, acc scale, int count, int n) {
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= count) return;
    Roi roi(rois + 5 * r, scale);
    images[r] = roi.is_good(n) && roi.is_formed() ? (int)roi.image : -1;
}

// ---- forward: a block has a RoI and `group` channels

KERNEL forward(const real *x, const real *rois, real *y, int *argmax, acc scale, int images,
               int channels, int height, int width, int pooled_h, int pooled_w, int group) {
    extern __shared__ Bin bins[];
    int groups = (channels + group - 1) / group;
    int r = blockIdx.x / groups, first = blockIdx.x % groups * group;
    Roi roi(rois + 5 * r, scale);
    for (int k = threadIdx.x; k < pooled_h + pooled_w; k += blockDim.x)
        bins[k] = k < pooled_h ? bin(roi.y1, roi.y2, k, pooled_h, height)
                               : bin(roi.x1, roi.x2, k - pooled_h, pooled_w, width);
    __syncthreads();
    bool good = roi.is_good(images);
    int cells = pooled_h * pooled_w, count = min(group, channels - first) * cells;
    index_t out = ((index_t)r * channels + first) * cells;
    index_t plane = ((index_t)(good ? (int)roi.image : 0) * channels + first) * height * width;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        int cell = i % cells, winner = -1;
        Bin down = bins[cell / pooled_w], across = bins[pooled_h + cell % pooled_w];
        const real *map = x + plane + (index_t)(i / cells) * height * width;
        acc best = (acc)LOWEST;
        for (int h = down.begin; h < down.end; h++)
            for (int w = across.begin; w < across.end; w++) {
                acc v = wide(map[h * width + w]);
                if (v > best) best = v, winner = h * width + w;
            }
        if (down.end <= down.begin || across.end <= across.begin) best = 0;
        // NOTE: on the host a bad RoI is an error; to raise it here would wait for the device.
        if (!good) best = __int_as_float(0x7fc00000), winner = -1;
        narrow(best, y[out + i]);
        if (argmax) argmax[out + i] = winner;
    }
}

// ---- backward: a block has a plane of the map, and takes the RoIs in their order
//
// Bins of one RoI may share their winner. The first of them adds up for all, in their order, so
// that no two threads write to one element, and every sum is formed as on the CPU.

struct Share {
    int winner;
    acc slope;
};

KERNEL backward(const real *dy, const int *argmax, const int *images, acc *sums, real *dx,
                int rois, int channels, int size, int cells) {
    extern __shared__ double memory[];
    acc *slopes = (acc *)memory;
    int *winners = (int *)(slopes + blockDim.x), t = threadIdx.x, lanes = blockDim.x;
    acc *plane = sums ? sums + (index_t)blockIdx.x * size : (acc *)(winners + lanes);
    int image = blockIdx.x / channels, channel = blockIdx.x % channels;
    int parts = (cells + lanes - 1) / lanes;

    // What this thread has of step number k, which is one part of the bins of one RoI.
    auto share = [=](int k) {
        int r = k / parts, cell = k % parts * lanes + t;
        if (r >= rois || images[r] != image || cell >= cells) return Share{-1, 0};
        index_t place = ((index_t)r * channels + channel) * cells + cell;
        return Share{argmax[place], wide(dy[place])};
    };

    for (int i = t; i < size; i += lanes) plane[i] = 0;
    Share next = share(0);
    for (int k = 0; k < rois * parts; k++) {
        Share mine = next;
        next = share(k + 1);  // fetched while this one is added
        if (images[k / parts] != image) continue;  // for all threads alike
        __syncthreads();
        winners[t] = mine.winner;
        slopes[t] = mine.slope;
        __syncthreads();
        bool is_first = mine.winner >= 0;
        acc total = is_first ? plane[mine.winner] : acc(0);
#pragma unroll 8
        for (int j = 0; j < lanes; j++) {
            bool same = winners[j] == mine.winner;
            if (same && j < t) is_first = false;
            if (same && j >= t) total += slopes[j];
        }
        if (is_first) plane[mine.winner] = total;
    }
    __syncthreads();
    for (int i = t; i < size; i += lanes) narrow(plane[i], dx[(index_t)blockIdx.x * size + i]);
}

// From the outputs of a region proposal network to boxes, before and after suppression
// (proposals.py; NMS itself is in nms.cu).
//
// An image's `report` has, as int32: how many scores and how many deltas are not finite, in all
// images together; then for each image how many boxes are large enough, and how many are kept.
#include "prelude.cuh"
#include "boxes.cuh"
#include "anchors.cuh"

#define KERNEL extern "C" __global__ void

constexpr int NUMBERS = 2;  // of a report, before those of the images
constexpr int THREADS = 256;

__device__ inline bool is_finite(acc v) { return v - v == 0; }

// NaN stays NaN, which no size is at least.
__device__ inline acc clip(acc v, acc most) {
    v = v > most ? most : v;
    return v < 0 ? acc(0) : v;
}

struct Deltas {
    acc x, y, w, h;
};

// boxes/transform.py: bbox_transform_inv, clip_boxes. In an image of no size, boxes lie at 0.
__device__ inline Box<acc> moved(Box<acc> anchor, Deltas d, acc height, acc width) {
    acc w = anchor.width(), h = anchor.height();
    acc x = d.x * w + (anchor.x1 + acc(0.5) * w), y = d.y * h + (anchor.y1 + acc(0.5) * h);
    acc half_w = acc(0.5) * exp(d.w) * w, half_h = acc(0.5) * exp(d.h) * h;
    return {clip(x - half_w, width - 1), clip(y - half_h, height - 1),
            clip(x + half_w, width - 1), clip(y + half_h, height - 1)};
}

// boxes (n, 4) and keys (n,), the scores, or -infinity for a box that is too small.
// scores: (2A, H, W). deltas: (4A, H, W). large: where the report counts.
KERNEL decode(const real *scores, const real *deltas, const double *base, acc *boxes, acc *keys,
              int *report, acc height, acc width, acc least, double stride, int anchors, int rows,
              int columns, int image) {
    Anchors all = {base, stride, anchors, rows, columns};
    int i = blockIdx.x * blockDim.x + threadIdx.x, size = rows * columns;  // as the maps lie
    bool is_large = false;
    int bad_scores = 0, bad_deltas = 0;
    if (i < all.count()) {
        int a = i / size, place = i % size, n = place * anchors + a;
        acc score = wide(scores[(index_t)(anchors + a) * size + place]);
        const real *d = deltas + (index_t)4 * a * size + place;
        Deltas delta = {wide(d[0]), wide(d[size]), wide(d[2 * size]), wide(d[3 * size])};
        bad_scores = !is_finite(score) + !is_finite(wide(scores[i]));
        bad_deltas = !is_finite(delta.x) + !is_finite(delta.y) + !is_finite(delta.w) +
                     !is_finite(delta.h);
        Box<acc> box = moved(all.box<acc>(n), delta, height, width);
        is_large = box.width() >= least && box.height() >= least;
        acc *out = boxes + (index_t)4 * n;
        out[0] = box.x1, out[1] = box.y1, out[2] = box.x2, out[3] = box.y2;
        keys[n] = is_large ? score : acc(-__int_as_float(0x7f800000));
    }
    int large = __syncthreads_count(is_large);
    if (threadIdx.x == 0 && large) atomicAdd(report + NUMBERS + 2 * image, large);
    if (bad_scores) atomicAdd(report, bad_scores);
    if (bad_deltas) atomicAdd(report + 1, bad_deltas);
}

// ranks[i] += how many keys of a part come before key i: larger ones, and equal ones with a smaller
// index. A thread has OWN keys, and compares them with all others; for a map's worth of anchors
// that is quicker than to sort in several passes.
constexpr int OWN = 4;

template <class F>
__device__ inline void compare(int size, F f) {
#pragma unroll 8
    for (int k = 0; k < size; k++)
#pragma unroll
        for (int m = 0; m < OWN; m++) f(k, m);
}

KERNEL rank(const acc *keys, int *ranks, int part, int n) {
    __shared__ acc tile[THREADS];
    int first = blockIdx.x * THREADS * OWN + threadIdx.x, counts[OWN] = {};
    acc own[OWN] = {};
#pragma unroll
    for (int m = 0; m < OWN; m++)
        if (first + m * THREADS < n) own[m] = keys[first + m * THREADS];
    int end = min((int)(blockIdx.y + 1) * part, n);
    for (int base = blockIdx.y * part; base < end; base += THREADS) {
        __syncthreads();
        if (base + (int)threadIdx.x < end) tile[threadIdx.x] = keys[base + threadIdx.x];
        __syncthreads();
        int size = min(THREADS, end - base), place = blockIdx.x * THREADS * OWN;
        // Of equal keys the earlier comes first; only where parts meet does that take comparing.
        if (base + size <= place)
            compare(size, [&](int k, int m) { counts[m] += tile[k] >= own[m]; });
        else if (base >= place + THREADS * OWN)
            compare(size, [&](int k, int m) { counts[m] += tile[k] > own[m]; });
        else
            compare(size, [&](int k, int m) {
                bool earlier = base + k < first + m * THREADS;
                counts[m] += earlier ? tile[k] >= own[m] : tile[k] > own[m];
            });
    }
#pragma unroll
    for (int m = 0; m < OWN; m++)
        if (first + m * THREADS < n && counts[m]) atomicAdd(ranks + first + m * THREADS, counts[m]);
}

// The best `limit` boxes in order: sorted (4, limit), their areas and scores (limit,), and how many
// of them there are.
KERNEL place(const acc *boxes, const acc *keys, const int *ranks, acc *sorted, acc *areas,
             acc *scores, int *report, int *count, int image, int limit, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i == 0) *count = min(report[NUMBERS + 2 * image], limit);
    if (i >= n || ranks[i] >= limit) return;
    int r = ranks[i];
    Box<acc> box = box_at<acc>(boxes + (index_t)4 * i);
    sorted[r] = box.x1, sorted[limit + r] = box.y1;
    sorted[2 * limit + r] = box.x2, sorted[3 * limit + r] = box.y2;
    areas[r] = box.area();
    scores[r] = keys[i];
}

// The rows of `rois`, and of `out` if that is not null, of an image: its kept boxes, after those of
// the images before it. Without any, the whole image is one, with a score of 0.
KERNEL fill_rows(const acc *sorted, const acc *scores, const int *kept, const int *report, real *rois,
             real *out, acc height, acc width, int image, int limit) {
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    const int *found = report + NUMBERS + 1;
    int first = 0, count = found[2 * image];
    for (int i = 0; i < image; i++) first += max(found[2 * i], 1);
    if (k >= max(count, 1)) return;
    Box<acc> box = {0, 0, max(width - 1, acc(0)), max(height - 1, acc(0))};
    acc score = 0;
    if (count) {
        box = box_at<acc>(sorted + kept[k], limit);
        score = scores[kept[k]];
    }
    real *row = rois + (index_t)5 * (first + k);
    narrow((acc)image, row[0]);
    narrow(box.x1, row[1]);
    narrow(box.y1, row[2]);
    narrow(box.x2, row[3]);
    narrow(box.y2, row[4]);
    if (out) narrow(score, out[first + k]);
}

// Greedy non-maximum suppression (nms.py).
//
// First all pairs are compared, 64 results a word; then one block goes through the boxes, 64 at a
// time, and keeps what none of those kept before overlaps.
#include "prelude.cuh"
#include "boxes.cuh"

typedef unsigned long long word_t;
constexpr int WORD = 64;  // boxes
constexpr double MARGIN = 1e-6;  // above the error of a product and a sum in single precision

// Bit k of mask[column * stride + i]: whether box i and the later box 64 * column + k overlap by
// more than the threshold. boxes: (4, stride) and areas, of which the first *count are.
extern "C" __global__ void overlapping(const real *boxes, const real *areas, const int *count,
                                       word_t *mask, acc threshold, int stride) {
    __shared__ Box<acc> others[WORD];
    __shared__ acc other_areas[WORD];
    int n = min(*count, stride), column = blockIdx.x * WORD, row = blockIdx.y * WORD;
    if (column < row || column >= n) return;
    int k = threadIdx.x, i = row + k, size = min(WORD, n - column);
    if (k < size) {
        others[k] = box_at<acc>(boxes + column + k, stride);
        other_areas[k] = wide(areas[column + k]);
    }
    __syncthreads();
    if (i >= n) return;
    Box<acc> box = box_at<acc>(boxes + i, stride);
    acc area = wide(areas[i]), below = threshold * acc(1 - MARGIN);
    word_t bits = 0;
    for (int j = column == row ? k + 1 : 0; j < size; j++) {
        acc inner = intersection(box, others[j]), both = area + other_areas[j] - inner;
        // The division, which is slow, decides only where the product says "perhaps".
        if (inner > both * below && inner / both > threshold) bits |= word_t(1) << j;
    }
    mask[(index_t)blockIdx.x * stride + i] = bits;
}

// kept[0 ... *found) = the boxes that are kept, at most `limit`. One block.
extern "C" __global__ void pick(const word_t *mask, const int *count, int *kept, int *found,
                                  int stride, int limit) {
    __shared__ word_t gone, own[WORD];
    __shared__ int total;
    int n = min(*count, stride), k = threadIdx.x;
    if (k == 0) total = 0;
    for (int first = 0; first < n; first += WORD) {
        const word_t *column = mask + (index_t)(first / WORD) * stride;
        if (k == 0) gone = 0;
        if (k < WORD) own[k] = first + k < n ? column[first + k] : 0;
        __syncthreads();
        word_t bits = 0;
        for (int j = k; j < total; j += blockDim.x) bits |= column[kept[j]];
        if (bits) atomicOr(&gone, bits);
        __syncthreads();
        if (k == 0) {
            word_t alive = n - first < WORD ? (word_t(1) << (n - first)) - 1 : ~word_t(0);
            alive &= ~gone;
            int most = total;
            while (alive && most < limit) {
                int next = __ffsll((long long)alive) - 1;
                kept[most++] = first + next;
                alive &= ~(own[next] | word_t(1) << next);
            }
            total = most;
        }
        __syncthreads();
        if (total >= limit) break;
    }
    if (k == 0) *found = total;
}

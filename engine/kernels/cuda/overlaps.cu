// Intersection over union of all pairs of two sets of boxes (overlaps.py).
#include "prelude.cuh"
#include "boxes.cuh"

extern "C" __global__ void overlaps(const real *boxes, const real *areas, const real *query,
                                    const real *query_areas, real *out, int queries, index_t n) {
    index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    index_t row = i / queries, k = i % queries;
    narrow(overlap(box_at<acc>(boxes + 4 * row), wide(areas[row]), box_at<acc>(query + 4 * k),
                   wide(query_areas[k])),
           out[i]);
}

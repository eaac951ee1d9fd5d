// Sums of rows into the rows that indices name (scatter.py).
#include "prelude.cuh"

// A thread an element of `out`: it looks through all indices, so sums have one order.
extern "C" __global__ void add_rows(const real *rows, const long long *index, real *out,
                                    index_t count, index_t columns, index_t n) {
    index_t i = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    index_t row = i / columns, column = i - row * columns;
    acc total = 0;
    bool any = false;
    for (index_t k = 0; k < count; k++)
        if (index[k] == row) {
            total += wide(rows[k * columns + column]);
            any = true;
        }
    if (any) narrow(wide(out[i]) + total, out[i]);
}

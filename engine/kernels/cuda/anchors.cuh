// The anchors of a map, from those of its first position (boxes/anchors.py: shift_anchors).
#pragma once

struct Anchors {
    const double *base;  // (A, 4)
    double stride;
    int anchors, rows, columns;

    __device__ int count() const { return anchors * rows * columns; }

    // Anchor number n, which counts row by row, in a row position by position.
    template <class T>
    __device__ Box<T> box(int n) const {
        const double *p = base + 4 * (n % anchors);
        int place = n / anchors;
        double x = place % columns * stride, y = place / columns * stride;
        return {(T)(x + p[0]), (T)(y + p[1]), (T)(x + p[2]), (T)(y + p[3])};
    }
};

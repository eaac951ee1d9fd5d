// Boxes (x1, y1, x2, y2), both corners included, and how much two of them overlap.
//
// Every operation rounds as in boxes/ and kernels/cpu: a box is chosen or not by the last bit.
#pragma once

template <class T>
struct Box {
    T x1, y1, x2, y2;

    __device__ T width() const { return x2 - x1 + 1; }
    __device__ T height() const { return y2 - y1 + 1; }
    __device__ T area() const { return width() * height(); }
};

template <class T, class F>
__device__ inline Box<T> box_at(const F *p, index_t step = 1) {
    return {(T)wide(p[0]), (T)wide(p[step]), (T)wide(p[2 * step]), (T)wide(p[3 * step])};
}

template <class T>
__device__ inline T intersection(Box<T> a, Box<T> b) {
    T width = min(a.x2, b.x2) - max(a.x1, b.x1) + 1;
    T height = min(a.y2, b.y2) - max(a.y1, b.y1) + 1;
    return max(width, T(0)) * max(height, T(0));
}

// Intersection over union; two boxes without area overlap by nothing, not by 0 / 0.
template <class T>
__device__ inline T overlap(Box<T> a, T area_a, Box<T> b, T area_b) {
    T inner = intersection(a, b);
    return inner > 0 ? inner / (area_a + area_b - inner) : T(0);
}

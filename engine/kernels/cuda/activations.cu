// Functions of single elements (activations.py).
#include "elementwise.cuh"

KERNEL relu(const real *x, real *y, acc slope, index_t n) {
    map(n, y, [=](acc v) { return v > 0 ? v : v * slope + acc(0); }, x);
}

KERNEL relu_backward(const real *x, const real *dy, real *dx, acc slope, index_t n) {
    map(n, dx, [=](acc v, acc d) { return v > 0 ? d : d * slope; }, x, dy);
}

KERNEL scaled(const real *x, real *out, acc a, index_t n) {
    map(n, out, [=](acc v) { return v * a; }, x);
}

KERNEL weighted_sum(const real *x, const real *y, real *out, acc a, acc b, acc rectify,
                    index_t n) {
    map(n, out, [=](acc v, acc w) {
        acc total = v * a + w * b;
        return rectify != 0 ? rectified(total) : total;
    }, x, y);
}

KERNEL sigmoid(const real *x, real *y, index_t n) {
    map(n, y, [=](acc v) { return 1 / (1 + exp(-v)); }, x);
}

KERNEL sigmoid_backward(const real *y, const real *dy, real *dx, index_t n) {
    map(n, dx, [=](acc v, acc d) { return d * v * (1 - v); }, y, dy);
}

KERNEL tanh_backward(const real *y, const real *dy, real *dx, index_t n) {
    map(n, dx, [=](acc v, acc d) { return d * (1 - v * v); }, y, dy);
}

KERNEL elu(const real *x, real *y, acc alpha, index_t n) {
    map(n, y, [=](acc v) { return v > 0 ? v : alpha * (exp(v) - 1); }, x);
}

KERNEL elu_backward(const real *x, const real *y, const real *dy, real *dx, acc alpha, index_t n) {
    map(n, dx, [=](acc v, acc w, acc d) { return v > 0 ? d : d * (w + alpha); }, x, y, dy);
}

KERNEL larger_backward(const real *x, const real *y, const real *dy, real *out, int first,
                       index_t n) {
    map(n, out, [=](acc v, acc w, acc d) { return d * acc((v > w) == (first != 0)); }, x, y, dy);
}

KERNEL pick_backward(const int *winner, const real *dy, real *dx, int k, index_t n) {
    map(n, dx, [=](int w, acc d) { return d * acc(w == k); }, winner, dy);
}

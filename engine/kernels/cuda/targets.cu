// What the region proposal network and the region head shall learn (targets.py): which boxes belong
// to which objects, and the targets of those that are sampled (sampling.cu).
//
// Objects are rows x1, y1, x2, y2, class; rows of class 0 are padding. Overlaps are computed in
// double precision, as on the CPU.
#include "prelude.cuh"
#include "boxes.cuh"
#include "anchors.cuh"
#include "flags.cuh"

#define KERNEL extern "C" __global__ void

struct Objects {
    const real *rows;
    int count;

    __device__ bool exists(int g) const { return wide(rows[5 * g + 4]) != 0; }
    __device__ acc label(int g) const { return wide(rows[5 * g + 4]); }
    template <class T>
    __device__ Box<T> box(int g) const {
        return box_at<T>(rows + 5 * g);
    }
    // f(g, overlap) for each object.
    template <class F>
    __device__ void meet(Box<double> box, F f) const {
        double area = box.area();
        for (int g = 0; g < count; g++) {
            if (!exists(g)) continue;
            Box<double> object = this->box<double>(g);
            f(g, overlap(box, area, object, object.area()));
        }
    }
};

struct Match {  // the object that a box overlaps most, the first of equals; -1 for none
    int object;
    double overlap;

    __device__ void look_at(int g, double value) {
        if (object < 0 || value > overlap) object = g, overlap = value;
    }
};

// boxes/transform.py: bbox_transform. Each box is centred in its own precision.
template <class E, class G, class F>
__device__ inline void transform(Box<E> box, Box<G> object, F write) {
    E width = box.width(), height = box.height();
    G object_width = object.width(), object_height = object.height();
    E x = box.x1 + E(0.5) * width, y = box.y1 + E(0.5) * height;
    G object_x = object.x1 + G(0.5) * object_width, object_y = object.y1 + G(0.5) * object_height;
    write(0, (object_x - x) / width);
    write(1, (object_y - y) / height);
    write(2, log(object_width / width));
    write(3, log(object_height / height));
}

// ---- anchors

struct Image {  // the limits that an anchor must be within
    double low, right, bottom;

    __device__ bool has(Box<double> box) const {
        return box.x1 >= low && box.y1 >= low && box.x2 < right && box.y2 < bottom;
    }
};

#define GRID const double *base
#define GRID_SIZES double stride, int anchors, int rows, int columns
#define IMAGE double low, double right, double bottom

// most[g] = the largest overlap that an object has with any anchor, as its bits.
KERNEL anchor_overlaps(const real *objects, GRID, word_t *most, GRID_SIZES, IMAGE, int count) {
    Anchors all = {base, stride, anchors, rows, columns};
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= all.count()) return;
    Box<double> box = all.box<double>(n);
    if (!Image{low, right, bottom}.has(box)) return;
    Objects{objects, count}.meet(box, [=](int g, double value) {
        // Numbers that are not negative are ordered as their bits.
        if (value > 0) atomicMax(most + g, (word_t)__double_as_longlong(value));
    });
}

// boxes/matching.py: label_anchors. flags and best (H * W * A,).
KERNEL anchor_labels(const real *objects, GRID, const word_t *most, flags_t *flags, int *best,
                     GRID_SIZES, IMAGE, int count, double positive, double negative, int clobber) {
    Anchors all = {base, stride, anchors, rows, columns};
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= all.count()) return;
    Box<double> box = all.box<double>(n);
    Match match = {-1, 0};
    int flag = 0;
    if (Image{low, right, bottom}.has(box)) {
        bool is_best = false;
        Objects{objects, count}.meet(box, [&](int g, double value) {
            match.look_at(g, value);
            is_best = is_best || value == __longlong_as_double((long long)most[g]);
        });
        bool is_low = match.object < 0 || match.overlap < negative;
        flag = is_low ? BACKGROUND : 0;
        if (is_best || (match.object >= 0 && match.overlap >= positive)) flag = FOREGROUND;
        if (clobber && is_low) flag = BACKGROUND;
    }
    flags[n] = flag;
    best[n] = match.object;
}

// The four tops of an image, (1, A * H, W) and (4A, H, W), from the flags after sampling, of which
// there are found[0] of foreground and found[1] of background.
KERNEL anchor_write(const real *objects, GRID, const flags_t *flags, const int *best,
                    const int *found, real *labels, real *targets, real *inside, real *outside,
                    GRID_SIZES, acc weight_x, acc weight_y, acc weight_w, acc weight_h,
                    double positive_weight) {
    Anchors all = {base, stride, anchors, rows, columns};
    int i = blockIdx.x * blockDim.x + threadIdx.x, size = rows * columns;  // as the maps lie
    if (i >= all.count()) return;
    int a = i / size, place = i % size, n = place * anchors + a;
    int flag = flags[n], object = best[n], foreground = found[0], background = found[1];
    narrow(flag ? acc(flag == FOREGROUND) : acc(-1), labels[i]);
    double share = 0;
    if (flag && positive_weight < 0) share = 1. / max(foreground + background, 1);
    if (flag == FOREGROUND && positive_weight >= 0) share = positive_weight / foreground;
    if (flag == BACKGROUND && positive_weight >= 0) share = (1 - positive_weight) / background;
    acc weights[] = {weight_x, weight_y, weight_w, weight_h};
    index_t first = (index_t)4 * a * size + place;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        narrow(acc(0), targets[first + k * size]);
        narrow(flag == FOREGROUND ? (acc)(float)weights[k] : acc(0), inside[first + k * size]);
        narrow((acc)(float)share, outside[first + k * size]);
    }
    if (object < 0) return;  // outside of the image, or one without objects
    transform(all.box<double>(n), Objects{objects, 0}.box<acc>(object), [=](int k, double value) {
        narrow((acc)(float)value, targets[first + k * size]);
    });
}

// ---- regions of interest: those of an image among all, then its objects as further ones

__device__ inline bool is_finite(acc v) { return v - v == 0; }

__device__ inline Box<acc> candidate(const real *rois, int count, const real *objects, int k) {
    return k < count ? box_at<acc>(rois + (index_t)5 * k + 1) : box_at<acc>(objects + 5 * (k - count));
}

// boxes/matching.py: best_objects, split_rois. flags and best (R + G,). *bad becomes R - r for the
// first RoI r that is not finite or of no image.
KERNEL roi_labels(const real *rois, const real *objects, flags_t *flags, int *best, int *bad,
                  int image, int images, int roi_count, int count, double foreground, double high,
                  double low) {
    int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= roi_count + count) return;
    bool mine = true;
    if (k < roi_count) {
        const real *roi = rois + (index_t)5 * k;
        acc index = wide(roi[0]);
        bool good = index >= 0 && index < images && index == floor(index);
        for (int j = 1; j < 5; j++) good = good && is_finite(wide(roi[j]));
        if (!good) atomicMax(bad, roi_count - k);
        mine = good && index == image;
    } else {
        mine = Objects{objects, count}.exists(k - roi_count);
    }
    Match match = {-1, 0};
    int flag = 0;
    if (mine) {
        Box<acc> box = candidate(rois, roi_count, objects, k);
        Box<double> wider = {(double)box.x1, (double)box.y1, (double)box.x2, (double)box.y2};
        Objects{objects, count}.meet(wider, [&](int g, double value) { match.look_at(g, value); });
        // NOTE: without objects, everything is background, whatever `low` is.
        if (match.object >= 0 && match.overlap >= foreground) flag = FOREGROUND;
        if (match.overlap < high && (match.overlap >= low || match.object < 0)) flag |= BACKGROUND;
    }
    flags[k] = flag;
    best[k] = match.object;
}

// The rows of the five tops of an image, after those of the images before it. A block has a row.
// kept: what was sampled, foreground first. found: two numbers of each image, as of `sample`.
KERNEL roi_write(const real *rois, const real *objects, const int *best, const int *kept,
                 const int *found, real *out, real *labels, real *targets, real *inside,
                 real *outside, int image, int roi_count, int classes, acc weight_x, acc weight_y,
                 acc weight_w, acc weight_h, int normalise, double mean_x, double mean_y,
                 double mean_w, double mean_h, double std_x, double std_y, double std_w,
                 double std_h) {
    int row = blockIdx.x, foreground = found[2 * image], count = foreground + found[2 * image + 1];
    if (row >= count) return;
    index_t at = row;
    for (int i = 0; i < image; i++) at += found[2 * i] + found[2 * i + 1];
    int k = kept[row];
    Objects all = {objects, 0};
    Box<acc> box = candidate(rois, roi_count, objects, k);
    acc label = row < foreground ? all.label(best[k]) : acc(0), values[4] = {};
    if (row < foreground)
        transform(box, all.box<acc>(best[k]), [&](int j, acc value) { values[j] = value; });
    double means[] = {mean_x, mean_y, mean_w, mean_h}, stds[] = {std_x, std_y, std_w, std_h};
    if (row < foreground && normalise)
        for (int j = 0; j < 4; j++) {
            values[j] = (acc)((double)values[j] - means[j]);
            values[j] = (acc)((double)values[j] / stds[j]);
        }
    acc weights[] = {weight_x, weight_y, weight_w, weight_h};
    if (threadIdx.x == 0) {
        acc cells[] = {(acc)image, box.x1, box.y1, box.x2, box.y2};
        for (int j = 0; j < 5; j++) narrow(cells[j], out[5 * at + j]);
        narrow(label, labels[at]);
    }
    for (int j = threadIdx.x; j < 4 * classes; j += blockDim.x) {
        bool own = label > 0 && j / 4 == (int)label;
        float weight = own ? (float)weights[j % 4] : 0.f;
        narrow(own ? (acc)(float)values[j % 4] : acc(0), targets[at * 4 * classes + j]);
        narrow((acc)weight, inside[at * 4 * classes + j]);
        narrow(acc(weight > 0), outside[at * 4 * classes + j]);
    }
}

"""What the engine costs beside the computation: `python benchmarks/engine_overhead.py`.

Prints, as medians of repetitions in one run:
- the time of `import caffe` in a fresh interpreter;
- the time to parse and to build VGG16 (138 million parameters, not filled);
- the time per layer and pass of a net of 200 tiny layers, beside the same NumPy operations alone;
- the forward time of a small convolutional net if the image size changes every pass, and if not.
"""

import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import caffe
from caffe import layers as L
from demitasse import prototxt


def median_ms(function, repeat):
    """Median time of `function` in milliseconds, after one call to warm up."""
    function()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def import_ms():
    """Time of `import caffe` in a fresh interpreter, without the interpreter's own start."""
    code = "import time; t = time.perf_counter(); import caffe; print(time.perf_counter() - t)"

    def once():
        return float(subprocess.check_output([sys.executable, "-c", code]))

    once()
    return 1e3 * statistics.median(once() for _ in range(7))


def tiny_net(count):
    """`count` layers, alternately InnerProduct and ReLU, on 1x8 values."""
    net = caffe.NetSpec()
    net.data = x = L.Input(shape=dict(dim=[1, 8]))
    for k in range(count // 2):
        x = net[f"ip{k}"] = L.InnerProduct(x, num_output=8, weight_filler=dict(type="xavier"))
        x = net[f"relu{k}"] = L.ReLU(x)
    net.loss = L.Reduction(x, loss_weight=1)
    return net.to_proto()


def bare_numpy(net):
    """The forward and backward operations of `tiny_net` on the same arrays, without a net."""
    nodes = [n for n in net._engine.nodes if n.type in ("InnerProduct", "ReLU")]

    def forward():
        for n in nodes:
            x, y = n.bottoms[0].array, n.tops[0].array
            if n.type == "InnerProduct":
                np.matmul(x, n.layer.blobs[0].array.T, out=y)
                np.add(y, n.layer.blobs[1].array, out=y)
            else:
                np.maximum(x, 0, out=y)

    def backward():
        for n in reversed(nodes):
            x, dx, dy = n.bottoms[0].array, n.bottoms[0].grad, n.tops[0].grad
            if n.type == "InnerProduct":
                n.layer.blobs[0].grad[...] += dy.T @ x
                n.layer.blobs[1].grad[...] += dy.sum(axis=0)
                np.matmul(dy, n.layer.blobs[0].array, out=dx)
            else:
                np.multiply(dy, x > 0, out=dx)

    return forward, backward


def changing_sizes(folder):
    """Forward time of VGG16's first two stages, ms an image: sizes mixed, and one by one."""
    net = caffe.NetSpec()
    net.data = x = L.Input(shape=dict(dim=[1, 3, 64, 64]))
    for k, width in enumerate((64, 64, 128, 128)):
        x = L.Convolution(
            x, num_output=width, kernel_size=3, pad=1, weight_filler=dict(type="msra")
        )
        x = net[f"pool{k}"] = L.Pooling(L.ReLU(x, in_place=True), kernel_size=2, stride=2)
    net = caffe.Net(write(folder, "sizes.prototxt", net.to_proto()), caffe.TEST)
    sizes = [(160 + 16 * k, 224 - 16 * k) for k in range(8)]

    def forward(size):
        net.blobs["data"].reshape(1, 3, *size)
        net.forward()

    mixed = median_ms(lambda: [forward(size) for size in sizes], 9) / len(sizes)
    alone = sum(median_ms(lambda s=size: forward(s), 9) for size in sizes) / len(sizes)
    return mixed, alone


def write(folder, name, proto):
    """Write a NetParameter as text and return its path."""
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(str(proto))
    return path


def main():
    """Measure and print."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
          f"NumPy {np.__version__}")  # fmt: skip
    print(f"import caffe: {import_ms():.0f} ms")
    with tempfile.TemporaryDirectory() as folder:
        path = prototxt.path("vgg16", "classification.prototxt")
        built = median_ms(lambda: caffe.Net(path, caffe.TEST), 7)
        print(f"parse and build VGG16, parameters not filled: {built:.0f} ms")

        net = caffe.Net(write(folder, "tiny.prototxt", tiny_net(200)), caffe.TRAIN)
        bare_forward, bare_backward = bare_numpy(net)
        engine = net._engine
        for verb, ours, bare in (
            ("forward", engine.forward, bare_forward),
            ("backward", engine.backward, bare_backward),
        ):
            mine, alone = median_ms(ours, 50), median_ms(bare, 50)
            print(f"200 tiny layers, {verb}: {1e3 * mine / 200:.1f} us a layer, NumPy alone "
                  f"{1e3 * alone / 200:.1f} us, the engine adds "
                  f"{1e3 * (mine - alone) / 200:.1f} us")  # fmt: skip
        mixed, alone = changing_sizes(folder)
        print(f"a new image size every pass: {mixed:.2f} ms an image; the same sizes one by one: "
              f"{alone:.2f} ms")  # fmt: skip


if __name__ == "__main__":
    main()

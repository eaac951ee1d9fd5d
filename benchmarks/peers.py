"""The other sides of a comparison: PyTorch, OpenCV 4 and ONNX Runtime, and the list of all."""

import os
import tempfile
from importlib import metadata

import numpy as np
from cases import DECAY, MOMENTUM, RATE, compared_blobs, fill, inputs, net_parameter, sample
from ours import Demitasse, Unavailable, not_installed


def _arrays(param, training, dtype):
    """Layer name -> arrays of weights, in the shapes of a net that is built but never filled."""
    import caffe
    from demitasse.engine.net import Net

    kinds = {layer.name: layer.type for layer in param.layer}
    arrays = {}
    for name, blobs in Net(param, caffe.TRAIN if training else caffe.TEST).params.items():
        arrays[name] = [np.empty(blob.shape, dtype) for blob in blobs]
        for k, array in enumerate(arrays[name]):
            fill(name, kinds[name], k, array)
    return arrays


class Torch:
    """PyTorch, eager."""

    name = "PyTorch NCHW"
    channels_last = False

    @staticmethod
    def missing():
        return not_installed("torch")

    def __init__(self, case, threads):
        import torch
        from torch_net import TorchNet

        torch.set_num_threads(threads)
        self.torch, self.mode = torch, case.mode
        param = net_parameter(case)
        self.compared = compared_blobs(param, case) if case.mode == "forward" else []
        training = case.mode == "train"
        self.net = TorchNet(
            param, _arrays(param, training, case.dtype), training, case.mode != "forward",
            self.channels_last, self.compared,
        )  # fmt: skip
        self.blobs = {
            name: self._tensor(name, v.astype(case.dtype)) for name, v in inputs(param).items()
        }
        if case.mode == "train":
            self.optimizer = torch.optim.SGD(
                self._groups(param), lr=RATE, momentum=MOMENTUM, weight_decay=DECAY
            )

    def _tensor(self, name, values):
        tensor = self.torch.from_numpy(values)
        if name == "label":
            return tensor.long()
        layout = self.torch.channels_last if self.channels_last else self.torch.contiguous_format
        return tensor.contiguous(memory_format=layout)

    def _groups(self, param):
        """Parameter groups by Caffe's lr_mult and decay_mult."""
        specs = {layer.name: layer.param for layer in param.layer}
        groups = {}
        for (name, k), weight in zip(self.net.names, self.net.weights):
            spec = specs[name][k] if k < len(specs[name]) else None
            key = (spec.lr_mult, spec.decay_mult) if spec else (1, 1)
            groups.setdefault(key, []).append(weight)
        return [
            {"params": weights, "lr": RATE * rate, "weight_decay": DECAY * decay}
            for (rate, decay), weights in groups.items()
        ]

    def run(self):
        if self.mode == "forward":
            with self.torch.inference_mode():
                return self.net.run(**self.blobs)
        loss = self._gradients()
        if self.mode == "train":
            self.optimizer.step()
        return loss

    def _gradients(self):
        self.net.zero_grad(set_to_none=True)
        loss = self.net.loss(**self.blobs)
        loss.backward()
        return float(loss.detach())

    def results(self):
        if self.mode == "forward":
            blobs = self.run()
            return {name: blobs[name].contiguous().numpy().copy() for name in self.compared}
        found = {"loss": np.array([self._gradients()])}
        for (name, k), weight in zip(self.net.names, self.net.weights):
            found[f"gradient of {name} {k}"] = sample(weight.grad.contiguous().numpy())
        return found


class TorchChannelsLast(Torch):
    """PyTorch with images and weights in channels_last."""

    name = "PyTorch NHWC"
    channels_last = True


class OpenCV:
    """OpenCV 4.x's Caffe importer; forward only."""

    name = "OpenCV"

    @staticmethod
    def missing():
        version = opencv_version()
        if version.split(".")[0] == "4":
            return ""
        return f"OpenCV {version} has no Caffe importer (4.x has)" if version else "not installed"

    def __init__(self, case, threads):
        import cv2

        if case.mode != "forward":
            raise Unavailable("forward only")
        cv2.setNumThreads(threads)
        param = net_parameter(case)
        side = Demitasse(case, threads)
        with tempfile.TemporaryDirectory() as folder:
            paths = [os.path.join(folder, n) for n in ("net.prototxt", "net.caffemodel")]
            with open(paths[0], "w") as file:
                file.write(str(param))
            side.net.save(paths[1])
            self.net = cv2.dnn.readNetFromCaffe(*paths)
        self.net.setInput(side.net.blobs["data"].data.copy())
        self.output = param.layer[-1].top[0]

    def run(self):
        return self.net.forward()

    def results(self):
        return {self.output: self.run().copy()}


def opencv_version():
    """The version of the OpenCV package that is installed, "" without one."""
    for kind in ("contrib-python-headless", "python-headless", "contrib-python", "python"):
        try:
            return metadata.version(f"opencv-{kind}")
        except metadata.PackageNotFoundError:
            continue
    return ""


class OnnxRuntime:
    """ONNX Runtime, of what PyTorch exports; forward only."""

    name = "ONNX Runtime"

    @staticmethod
    def missing():
        return not_installed("torch", "onnx", "onnxruntime")

    def __init__(self, case, threads):
        import onnxruntime
        import torch

        if case.mode != "forward":
            raise Unavailable("forward only")
        side = Torch(case, threads)
        data = side.blobs["data"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "net.onnx")
            torch.onnx.export(side.net, (data,), path, input_names=["data"], dynamo=False)
            self.session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        self.feed = {"data": data.numpy()}
        self.output = side.compared[0]

    def run(self):
        return self.session.run(None, self.feed)[0]

    def results(self):
        return {self.output: self.run()}


SIDES = {
    "ours": Demitasse,
    "torch": Torch,
    "torch-nhwc": TorchChannelsLast,
    "opencv": OpenCV,
    "onnxruntime": OnnxRuntime,
}

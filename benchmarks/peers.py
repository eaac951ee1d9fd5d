"""The sides of networks.py: ours, PyTorch, and, forward only, OpenCV 4 and ONNX Runtime."""

import os
import tempfile

from cases import net_parameter
from ours import Demitasse, Unavailable, not_installed
from report import opencv_version
from torch_side import Torch, TorchChannelsLast


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

"""Ours, as a side of a comparison: something that builds a Case and runs it again and again.

    side = Demitasse(case, threads)
    side.run()            one pass of case.mode
    side.results()        {name: array} of one pass, to be compared with another side's

`missing()` says what a side lacks to take part at all; a constructor raises Unavailable where it
cannot take part in a case.
"""

import os
import tempfile
from importlib import util

import numpy as np
from cases import (
    DECAY,
    MOMENTUM,
    RATE,
    compared_blobs,
    fill_weights,
    inputs,
    net_parameter,
    sample,
)


class Unavailable(Exception):
    """A side that cannot do what is asked."""


def not_installed(*packages):
    """What to say of the packages that cannot be imported; "" if all can."""
    absent = [p for p in packages if util.find_spec(p) is None]
    return f"{' and '.join(absent)} not installed" if absent else ""


class Demitasse:
    """Ours: `caffe.Net`, or an SGD solver's step."""

    name = "demitasse"

    @staticmethod
    def missing():
        return not_installed("caffe")

    def __init__(self, case, threads):
        self.mode = case.mode
        param = net_parameter(case)
        self.compared = compared_blobs(param, case)
        if case.dtype == "float64":
            self.net = _double_net(param, case)
        elif case.mode == "train":
            self.solver = _solver(param)
            self.net = self.solver.net
        else:
            self.net = _net(param, case)
        kinds = {layer.name: layer.type for layer in param.layer}
        fill_weights(data_of(self.net.params), kinds)
        for name, values in inputs(param).items():
            self.net.blobs[name].data[...] = values

    def run(self):
        if self.mode == "forward":
            self.net.forward()
        elif self.mode == "backward":
            self._gradients()
        else:
            self.solver.step(1)

    def _gradients(self):
        self.net.clear_param_diffs()
        loss = self.net._engine.forward()
        self.net.backward()
        return loss

    def results(self):
        if self.mode == "forward":
            self.net.forward()
            return {name: self.net.blobs[name].data.copy() for name in self.compared}
        found = {"loss": np.array([self._gradients()])}
        return found | gradients_of(self.net.params)


def data_of(params):
    """{layer name: arrays} of {layer name: blobs}."""
    return {name: [blob.data for blob in blobs] for name, blobs in params.items()}


def gradients_of(params):
    """{name: values} of the gradients that {layer name: blobs} have, some elements of each."""
    return {
        f"gradient of {name} {k}": sample(blob.diff)
        for name, blobs in params.items()
        for k, blob in enumerate(blobs)
        if blob.has_grad
    }


def _net(param, case):
    """The caffe.Net of a NetParameter."""
    import caffe

    # A TEST net would not keep under keep="minimal" what backward needs.
    phase = caffe.TEST if case.mode == "forward" else caffe.TRAIN

    options = {"keep": case.keep} if case.keep else {}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "net.prototxt")
        with open(path, "w") as file:
            file.write(str(param))
        try:
            return caffe.Net(path, phase, **options)
        except TypeError as e:  # an older one, without `keep`
            raise Unavailable(str(e)) from e


def _double_net(param, case):
    """The same in float64, which only the engine's own net can be."""
    import caffe
    from demitasse.engine.net import Net

    phase = caffe.TEST if case.mode == "forward" else caffe.TRAIN
    return caffe.Net._wrap(Net(param, phase, dtype=np.float64))


def _solver(param):
    """A caffe.SGDSolver of a NetParameter, at a learning rate that leaves the weights alone."""
    import caffe

    text = (
        f'base_lr: {RATE} lr_policy: "fixed" momentum: {MOMENTUM} weight_decay: {DECAY} '
        f"random_seed: 1 snapshot_after_train: false net_param {{ {param} }}"
    )
    os.environ["GLOG_minloglevel"] = "3"  # noqa: SIM112 (glog spells it so)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "solver.prototxt")
        with open(path, "w") as file:
            file.write(text)
        return caffe.SGDSolver(path)

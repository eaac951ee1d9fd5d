"""Our graphs, given to the real cuDNN, which plans them for an H200 where there is no GPU.

Skipped without nvidia-cudnn-frontend, nvidia-cudnn-cu13 and nvidia-cublas (1 GB together), whose
folders LD_LIBRARY_PATH must name. Nothing is computed: it is checked that cuDNN has plans.
"""

import ctypes
import dataclasses
import json

import pytest
from convolution_cases import CASES, geometry

from demitasse.engine.kernels.cuda import by_cudnn, cudnn_plans
from demitasse.engine.kernels.cuda.cudnn_plans import Recipe, channels_first, channels_last

H200 = {
    "deviceName": "NVIDIA H200", "deviceVer": 900, "driverVer": 13000, "cudaDeviceId": 0,
    "totalGlobalMem": 150754820096, "maxGridSize": [2147483647, 65535, 65535],
    "maxBlockSize": [1024, 1024, 64], "regsPerBlock": 65536, "multiProcessorCount": 132,
    "smCountOrigin": 0, "warpSize": 32, "maxSharedMemoryPerBlock": 49152,
    "maxSharedMemoryPerBlockOptin": 232448, "reservedSharedMemoryPerBlock": 1024,
    "maxRegistersPerSM": 65536, "maxCtasPerSM": 32, "maxThreadsPerBlock": 1024,
    "maxThreadsPerSM": 2048, "pciDeviceId": 0, "isTccDriver": 0, "supportCoopLaunch": 1,
    "smClockRateKHz": 1980000, "memClockRateKHz": 3201000, "l2CacheSize": 62914560,
}  # fmt: skip

VGG16 = geometry(1, 256, 256, (150, 250), 3, pad=1)
NETS = {
    "VGG16 conv1_1": geometry(1, 3, 64, (600, 1000), 3, pad=1),
    "VGG16 conv3_2": VGG16,
    "VGG16 conv5_3": geometry(1, 512, 512, (38, 63), 3, pad=1),
    "RPN scores": geometry(1, 512, 18, (38, 63), 1),
    "ZF conv1": geometry(1, 3, 96, (600, 1000), 7, stride=2, pad=3),
    "AlexNet conv2": geometry(16, 96, 256, (27, 27), 5, pad=2, group=2),
    "ResNet-50 conv1": geometry(16, 3, 64, (224, 224), 7, stride=2, pad=3),
    "ResNet-50, pointwise, strides": geometry(16, 256, 512, (56, 56), 1, stride=2),
    "digits conv1": geometry(64, 1, 20, (28, 28), 5),
}
USED = {n: g for n, g in CASES.items() if len(g.kernel) <= 3 and n != "sticks out"} | NETS


class Deviceless:
    """A `Library` that plans for a device that is described."""

    def __init__(self, frontend):
        self.frontend = frontend
        self.properties = frontend.create_device_properties(json.dumps(H200))

    def options(self):
        return {"device_property": self.properties, "sm_version": 90}


@pytest.fixture(scope="module")
def library():
    cudnn = pytest.importorskip("cudnn", reason="no nvidia-cudnn-frontend")
    try:
        ctypes.CDLL("libcublasLt.so.13")  # without it cuDNN ends the process
        cudnn.backend_version()
    except (OSError, RuntimeError) as error:
        pytest.skip(f"cuDNN does not load here: {error}")
    return Deviceless(cudnn)


def recipe(g, kind, work, exact, **epilogue):
    layout, g = by_cudnn.layout_for(g, work, exact)
    order = channels_first if layout == "first" else channels_last
    ones = (1,) * (len(g.kernel) == 1)
    return Recipe(
        kind, order((g.batch, g.channels, *ones, *g.in_size)),
        channels_first((g.num_output, g.channels // g.group, *ones, *g.kernel)),
        order((g.batch, g.num_output, *ones, *g.out_size)),
        (0,) * len(ones) + g.pad, ones + g.stride, ones + g.dilation, work, exact, **epilogue,
    )  # fmt: skip


@pytest.mark.parametrize("name", USED)
@pytest.mark.parametrize("kind", ["forward", "data", "weight"])
@pytest.mark.parametrize("work", ["exact", "float32", "float16", "bfloat16"])
def test_there_is_a_plan(library, name, kind, work):
    exact = work == "exact"
    wanted = recipe(USED[name], kind, "float32" if exact else work, exact)
    plan = cudnn_plans.build(library, wanted)
    assert plan is not None
    assert plan.workspace <= cudnn_plans.WORKSPACE


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("work", ["exact", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("epilogue", [{"bias": True}, {"bias": True, "relu": True}])
def test_there_is_a_plan_with_an_epilogue(library, name, work, epilogue):
    exact = work == "exact"
    wanted = recipe(NETS[name], "forward", "float32" if exact else work, exact, **epilogue)
    assert cudnn_plans.build(library, wanted) is not None


def test_the_same_plan_every_time(library):
    for exact in (True, False):
        wanted = recipe(VGG16, "forward", "float32", exact, bias=True, relu=True)
        names = {cudnn_plans.build(library, wanted).name for _ in range(3)}
        assert len(names) == 1


def test_the_limit_of_workspace_holds(library, monkeypatch):
    monkeypatch.setattr(cudnn_plans, "WORKSPACE", 1 << 10)
    plan = cudnn_plans.build(library, recipe(VGG16, "forward", "float32", False))
    assert plan is None or plan.workspace <= 1 << 10


def test_what_no_plan_fits_has_none(library):
    g = dataclasses.replace(VGG16, out_size=(3, 3))  # not the size of such a convolution
    assert cudnn_plans.build(library, recipe(g, "forward", "float32", True)) is None

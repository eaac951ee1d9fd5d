"""A solver of a tiny net on made-up data, for tests of the training loop."""

from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text
from demitasse.solvers import make_solver

DATA = """
    layer { name: "data" type: "DummyData" top: "x" top: "t" include { phase: TRAIN }
      dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
        data_filler { type: "gaussian" std: 1 } data_filler { type: "uniform" } } }
    layer { name: "test_data" type: "DummyData" top: "x" top: "t" include { phase: TEST }
      dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
        data_filler { type: "constant" value: 1 } data_filler { type: "constant" value: 2 } } }
"""
NET = f"""name: "tiny" {DATA}
    layer {{ name: "ip" type: "InnerProduct" bottom: "x" top: "y"
      param {{ lr_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
      inner_product_param {{ num_output: 2 weight_filler {{ type: "xavier" }} }} }}
    layer {{ name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "l" loss_weight: 3 }}
"""
SETTINGS = 'base_lr: 0.1 lr_policy: "fixed" random_seed: 1 max_iter: 10 snapshot_after_train: false'


def solver_of(text, net=NET, **options):
    """A solver of SETTINGS and the fields in `text`; `options` are of `make_solver`."""
    param = parse_text(SETTINGS, caffe_pb2.SolverParameter)
    param.MergeFrom(parse_text(text, caffe_pb2.SolverParameter))
    if net is not None:
        param.net_param.CopyFrom(parse_text(net, caffe_pb2.NetParameter))
    return make_solver(param, **options)


def messages(caplog):
    """The lines that solvers have logged."""
    return [r.getMessage() for r in caplog.records if r.name == "demitasse.solver"]


def parameters(solver):
    """Copies of what the solver learns."""
    return [p.blob.data.copy() for p in solver.net.learnable]

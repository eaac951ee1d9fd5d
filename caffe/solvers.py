"""pycaffe's solvers: `caffe.get_solver(file)`, `caffe.SGDSolver(file)` and its kin."""

import os
from functools import cached_property

from demitasse.engine.prototxt import read_solver
from demitasse.solvers import make_solver

from .log import init_log
from .pycaffe import Net


class Solver:
    """Trains the net of a solver file.

    Attributes:
        net: the training net; test_nets: the list of test nets (both `caffe.Net`).
        iter: iterations done so far; lr: the learning rate of the next one.
    """

    _type = None  # the update rule that a subclass insists on

    def __init__(self, solver_file):
        init_log(force=False)
        path = os.fspath(solver_file)
        param = read_solver(path)
        if self._type is not None:
            param.type = self._type
        self._solver = make_solver(param, path)

    @cached_property
    def net(self):
        """The training net."""
        return Net._wrap(self._solver.net)

    @cached_property
    def test_nets(self):
        """The test nets, in the order of the solver file."""
        return [Net._wrap(net) for net in self._solver.test_nets]

    iter = property(lambda self: self._solver.iter, doc="Iterations done so far.")
    lr = property(lambda self: self._solver.lr, doc="The learning rate of the next iteration.")
    param = property(lambda self: self._solver.param, doc="The SolverParameter.")
    type = property(lambda self: self._solver.param.type, doc="The name of the update rule.")

    def step(self, iterations):
        """Train for a number of iterations, testing and snapshotting as the file says."""
        self._solver.step(iterations)

    def solve(self, resume_file=None):
        """Train until max_iter, from a .solverstate file if one is given."""
        self._solver.solve(None if resume_file is None else os.fspath(resume_file))

    def restore(self, path):
        """Continue from a .solverstate or .solverstate.h5 file."""
        self._solver.restore(os.fspath(path))

    def snapshot(self):
        """Write the weights and the solver's state; the files are named by the iteration."""
        return self._solver.snapshot()

    def share_weights(self, net):
        """Have another net use the memory of the training net's parameters."""
        net.share_with(self.net)

    def apply_update(self):
        """Update the parameters from the gradients that are in them."""
        self._solver.apply_update()

    def add_callback(self, on_start, on_gradients_ready):
        """Call `on_start()` before each iteration's passes and `on_gradients_ready()` after."""
        self._solver.add_callback(on_start, on_gradients_ready)


def _solver_class(name):
    class_ = type(f"{name}Solver", (Solver,), {"_type": name, "__module__": __name__})
    class_.__doc__ = f"A solver with the update rule {name}, whatever the solver file's `type`."
    return class_


SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver = map(
    _solver_class, ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
)


def get_solver(solver_file):
    """The solver of a solver prototxt file, by its `type`."""
    return Solver(solver_file)

"""Training: the loop, update rules, learning-rate policies, snapshots, signals."""

from .factory import device_of, make_solver
from .solver import Solver

__all__ = ["Solver", "device_of", "make_solver"]

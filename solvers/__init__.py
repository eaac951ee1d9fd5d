"""Training: the loop, update rules, learning-rate policies, snapshots, signals."""

from .solver import Solver, device_of, make_solver

__all__ = ["Solver", "device_of", "make_solver"]

"""Data parallelism: several processes (ranks) train one net, each on its own part of the data.

plan.py           how many ranks, on which devices; what a command line may not ask for
launch.py         starts the ranks that a flag asks for, watches them, stops them
place.py          which rank this process is, if it is one
join.py           what a rank does before and after it trains
communicator.py   how ranks talk: the interface, and a process that trains alone
mpi.py, nccl.py   the two implementations: CPUs over MPI, GPUs over NCCL
hub.py            messages of ranks through the process that has started them
gradients.py      the mean of gradients, in buckets, while backward runs
agreement.py      that all ranks have the same weights
trace.py          what ran when
"""

from .communicator import ALONE, Communicator, ParallelError
from .join import joined
from .launch import launch
from .place import place
from .plan import Plan, gpu_numbers, make_plan

__all__ = [
    "ALONE",
    "Communicator",
    "ParallelError",
    "Plan",
    "gpu_numbers",
    "joined",
    "launch",
    "make_plan",
    "place",
]

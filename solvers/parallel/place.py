"""Which rank this process is: the environment says it, as `launch` or an mpirun has set it."""

import os
from dataclasses import dataclass

HUB, RANK, SIZE = "DEMITASSE_HUB", "DEMITASSE_RANK", "DEMITASSE_RANKS"

# Rank, size, rank and size on this machine: our own launcher, Open MPI, MPICH and Intel MPI,
# MVAPICH.
_NAMES = (
    (RANK, SIZE, RANK, SIZE),
    (
        "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    (
        "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_LOCAL_RANK",
        "MV2_COMM_WORLD_LOCAL_SIZE",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A process among the ranks.

    Attributes:
        rank, size; local_rank, local_size: the same among the ranks of this machine.
        started: whether somebody has started this process as a rank.
        uses_mpi: whether that was an mpirun.
        hub: how to reach the `Hub` of our launcher, or None.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    started: bool = False
    uses_mpi: bool = False
    hub: str | None = None


def place(environment=None):
    """The `Place` of this process."""
    environment = os.environ if environment is None else environment
    for names in _NAMES:
        if names[0] in environment and names[1] in environment:
            rank, size = int(environment[names[0]]), int(environment[names[1]])
            local_rank = int(environment.get(names[2], rank))
            local_size = int(environment.get(names[3], size))
            own = names[0] == RANK
            return Place(
                rank, size, local_rank, local_size, True, not own, environment.get(HUB)
            )  # fmt: skip
    return Place()

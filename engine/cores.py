"""How many processor cores there are for this process."""

import os


def usable_cores():
    """The cores that this process may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def thread_limit():
    """OMP_NUM_THREADS as a positive integer not above the usable cores, or None."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    if not first.isdigit() or int(first) < 1:
        return None
    return min(int(first), usable_cores())

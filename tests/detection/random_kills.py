"""A program that pretrains and trains the tiny net in processes that are killed at random moments.

The processes are forks, which have everything imported already.
"""

import contextlib
import os
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import tiny_net
from tiny_run import make_job

from demitasse.detection import alt_opt
from demitasse.detection.config import merge
from demitasse.detection.loss_log import read_log

ITERS = {
    "pretrain": 12, "stage1_rpn": 10, "stage1_fast_rcnn": 10, "stage2_rpn": 10,
    "stage2_fast_rcnn": 10,
}  # fmt: skip
CFG = merge(
    tiny_net.CFG,
    {
        "TRAIN": {"SNAPSHOT_ITERS": 2},
        "PRETRAIN": {
            "ITERS": ITERS["pretrain"], "CROP_SIZES": [16, 24], "MOSAIC_SIZE": 50, "BATCH_SIZE": 2,
        },
    },
)  # fmt: skip
_DELAY = 0.04  # seconds, at most, after an iteration: more than one takes, so anything may be hit


def train(folder):
    """Train in a folder, going on where an earlier process has died; returns the detector."""
    return alt_opt.train(make_job(folder, resume=True, cfg=CFG), list(ITERS.values())[1:])


def kills(seed, per_stage):
    """(stage, iteration, seconds after it) of random moments, in the order of training."""
    rng = np.random.default_rng(seed)
    for stage, count in ITERS.items():
        for k in sorted(rng.choice(np.arange(1, count + 1), per_stage, replace=False).tolist()):
            yield stage, k, rng.uniform(0, _DELAY)


def fork(folder):
    """The id of a new process that trains, with exit status 1 if that fails."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        train(folder)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def is_running(process):
    """Whether a process that is ours to wait for has not ended."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def exit_status(process):
    """The exit status of a process, when it has ended; -9 if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def has_logged(folder, stage, iteration):
    """Whether a run has written an iteration down."""
    with contextlib.suppress(FileNotFoundError):
        entries = read_log(Path(folder) / "run" / "losses.jsonl")
        return any((e["stage"], e["iteration"]) == (stage, iteration) for e in entries)
    return False


def main(folder, seed, per_stage):
    """Train to the end; prints "killed in STAGE" for each process that did not get there."""
    for stage, iteration, delay in kills(int(seed), int(per_stage)):
        if has_logged(folder, stage, iteration):
            continue  # an earlier process has got further than it should
        process = fork(folder)
        while is_running(process) and not has_logged(folder, stage, iteration):
            time.sleep(0.002)
        time.sleep(delay)
        os.kill(process, signal.SIGKILL)  # one that has ended is still there to be waited for
        if exit_status(process) == -signal.SIGKILL:
            print(f"killed in {stage}", flush=True)
    return exit_status(fork(folder))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""How long a stage trains, and with which learning rates: the solver file's, then the config's.

When the number of iterations is changed, the schedule is stretched with it: the learning rate goes
down at the same fractions of the training.
"""

import logging

from ..engine.errors import SolverError
from ..engine.prototxt import read_solver
from ..solvers.optimizer import Optimizer

log = logging.getLogger("demitasse.detection")

PUBLISHED_ITERS = {"rpn": 80000, "fast_rcnn": 40000, "end2end": 70000}
"""py-faster-rcnn's iterations for VOC 2007, which its solver files leave to its programs."""

_FIELDS = {
    "TYPE": "type", "BASE_LR": "base_lr", "MOMENTUM": "momentum", "WEIGHT_DECAY": "weight_decay",
    "CLIP_GRADIENTS": "clip_gradients", "ITER_SIZE": "iter_size",
}  # fmt: skip


def solver_param(path, kind, cfg, iters=None):
    """The SolverParameter of a training stage.

    Args:
        path: of the solver file. Its net is not looked at.
        kind: what is trained, a key of PUBLISHED_ITERS; counts where the file has no max_iter.
        cfg: the `config.Solver`, whose values replace the file's.
        iters: how many iterations; None for the file's.

    Returns: a SolverParameter without nets and snapshots, with max_iter set.
    Raises: SolverError for a negative number of iterations; ModelFileError for a bad file.
    """
    param = read_solver(path)
    for field in ("net", "train_net", "net_param", "train_net_param", "snapshot_prefix"):
        param.ClearField(field)
    for field in ("test_net", "test_net_param", "test_iter", "test_state", "weights"):
        del getattr(param, field)[:]
    param.ClearField("test_interval")
    param.snapshot, param.snapshot_after_train = 0, False
    reference = _reference(param, kind)
    param.max_iter = reference if iters is None else iters
    if param.max_iter < 0:
        raise SolverError("iterations", "a number of at least 0", f"{param.max_iter}")
    if reference and param.max_iter not in (0, reference):
        stretch(param, param.max_iter / reference)
    _override(param, kind, cfg)
    return param


def _reference(param, kind):
    """The number of iterations that a file's learning rates are meant for."""
    if param.max_iter:
        return param.max_iter
    published = PUBLISHED_ITERS[kind]
    last = max([param.stepsize, *param.stepvalue])
    if last < published:
        return published
    # Made for a longer training (COCO's solver files): nothing says how long.
    log.warning(
        "The solver file has no max_iter and lowers the learning rate at iteration %d: "
        "that stays as it is, whatever the number of iterations.", last,
    )  # fmt: skip
    return 0


def stretch(param, factor):
    """Have the learning-rate policy of a SolverParameter take `factor` times as long."""
    if param.stepsize:
        param.stepsize = max(1, round(param.stepsize * factor))
    param.stepvalue[:] = [max(1, round(value * factor)) for value in param.stepvalue]
    if param.lr_policy == "exp":
        param.gamma = param.gamma ** (1 / factor)
    elif param.lr_policy in ("inv", "sigmoid"):
        param.gamma /= factor


def _override(param, kind, cfg):
    for key, field in _FIELDS.items():
        value = getattr(cfg, key)
        if value is not None:
            setattr(param, field, value)
    if kind == "rpn" and cfg.RPN_BASE_LR is not None:
        param.base_lr = cfg.RPN_BASE_LR
    if cfg.STEPS is not None:
        param.lr_policy, param.gamma = "multistep", cfg.GAMMA
        param.stepvalue[:] = sorted(max(1, round(f * param.max_iter)) for f in cfg.STEPS)


class WarmUp(Optimizer):
    """An `Optimizer` whose rate rises linearly over the first iterations.

    Caffe's policies have no such thing. Iteration k of `iters` has the policy's rate times
    factor + (1 - factor) k / iters. It depends on the iteration alone, so snapshots need nothing
    new.
    """

    def __init__(self, rule, net, iters, factor):
        super().__init__(rule, net)
        self.iters, self.factor = iters, factor

    def learning_rate(self, iteration):
        """The learning rate of an iteration, the next one or the one that is running."""
        rate = super().learning_rate(iteration)
        if iteration >= self.iters:
            return rate
        return rate * (self.factor + (1 - self.factor) * iteration / self.iters)


def add_warm_up(solver, cfg):
    """Have a new Solver warm up as the `config.Solver` says."""
    if cfg.WARMUP_ITERS > 0:
        solver.optimizer = WarmUp(
            solver.optimizer.rule, solver.net, cfg.WARMUP_ITERS, cfg.WARMUP_FACTOR
        )


def stage_iters(option, configured, count):
    """The iterations of each of `count` stages.

    Args:
        option: those of the command line, one for all stages or one a stage, or None.
        configured: those of the config, likewise; a number, a sequence or None.

    Returns: a list of numbers, or of None for what the solver files say.
    Raises: SolverError for another number of numbers.
    """
    given = configured if option is None else option
    if given is None:
        return [None] * count
    given = list(given) if isinstance(given, list | tuple) else [given]
    if len(given) not in (1, count):
        raise SolverError("iterations", f"one number, or {count}, one a stage", f"{given}")
    return given * count if len(given) == 1 else given

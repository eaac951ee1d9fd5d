"""The nets that a SolverParameter asks for: one to train, any number to test (Caffe: Solver)."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from ..engine.context import Context
from ..engine.errors import SolverError
from ..engine.files import find_beside
from ..engine.net import Net
from ..engine.proto import caffe_pb2
from ..engine.prototxt import read_net
from ..engine.random import RandomStream

log = logging.getLogger("demitasse.solver")

_TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


@dataclass
class NetSource:
    """A net before it is built: its NetParameter, where it is from, and that file's folder."""

    param: object
    text: str  # as log lines call the source
    folder: str
    solver_folder: str | None = None

    def build(self, phase, state, seed, settings, shard=None, **options):
        """The net in the state that is composed of, last counting most: `phase`, the net's own
        state, the solver's `state` (or None). It sees a `shard` of the data. `options` are further
        ones of `Net`."""
        param = caffe_pb2.NetParameter()
        param.CopyFrom(self.param)
        param.state.CopyFrom(caffe_pb2.NetState(phase=phase))
        param.state.MergeFrom(self.param.state)
        if state is not None:
            param.state.MergeFrom(state)
        context = Context(seed, settings, self.folder, self.solver_folder, shard)
        return Net(param, context=context, **options)


class Sources:
    """Finds the nets of a SolverParameter `param` whose file lies in `folder`, if it is a file."""

    def __init__(self, param, folder=None):
        self.param = param
        self.folder = folder

    def train(self):
        """The net to train. Raises SolverError unless exactly one is given."""
        p = self.param
        given = [field for field in _TRAIN_FIELDS if p.HasField(field)]
        if len(given) != 1:
            raise SolverError(
                "solver", f"one of {', '.join(_TRAIN_FIELDS)}", " and ".join(given) or "none",
                "Test nets have fields of their own: test_net and test_net_param.",
            )  # fmt: skip
        source = self._source(given[0], getattr(p, given[0]))
        log.info("Creating training net %s", _from("specified in", "from", source.text))
        return source

    def tests(self):
        """The test nets in Caffe's order: test_net_param, test_net, then the common net for each
        further test_iter."""
        p = self.param
        sources = [self._source("test_net_param", net) for net in p.test_net_param]
        sources += [self._source("test_net", name) for name in p.test_net]
        common = [f for f in ("net_param", "net") if p.HasField(f)]
        self._check_counts(len(sources), common)
        for _ in range(len(p.test_iter) - len(sources)):
            sources.append(self._source(common[0], getattr(p, common[0])))
        return sources

    def _check_counts(self, own_nets, common):
        p = self.param
        count = len(p.test_iter)
        if count < own_nets or (count > own_nets and not common):
            raise SolverError(
                "solver", f"a test_iter for each of {own_nets} test nets", f"{count}",
                "Write test_iter: BATCHES once for each test net.",
            )  # fmt: skip
        if any(n < 0 for n in p.test_iter):
            raise SolverError("solver", "test_iter of at least 0", f"{list(p.test_iter)}")
        if p.test_state and len(p.test_state) != count:
            raise SolverError(
                "solver", f"no test_state or one for each of {count} test nets",
                f"{len(p.test_state)}",
            )  # fmt: skip
        if count and p.test_interval <= 0:
            raise SolverError(
                "solver", "a positive test_interval, because there are test nets",
                f"{p.test_interval}", "Write test_interval: ITERATIONS, or remove test_iter.",
            )  # fmt: skip

    def _source(self, field, value):
        if isinstance(value, str):
            path = find_file(value, self.folder, f"solver field {field}")
            kind = "net" if field == "net" else field
            text = f"{kind} file: {value}"
            return NetSource(read_net(path), text, os.path.dirname(path), self.folder)
        return NetSource(value, field, self.folder, self.folder)


def _from(before_field, before_file, text):
    """NetSource.text in a sentence: "specified in net_param", "from net file: x.prototxt"."""
    return f"{before_file} {text}" if " " in text else f"{before_field} {text}."


def find_file(name, folder, where):
    """The absolute path of a file that a solver file names.

    A relative name is looked for from the working directory, then from the solver's `folder` (if
    there is one), then from that folder's parents, the nearest first.

    Raises:
        SolverError: it is nowhere; says where it was looked for.
    """
    found = find_beside(name, [] if folder is None else [folder], os.path.isfile)
    if found is not None:
        return os.path.abspath(found)
    looked = [os.getcwd()]
    if folder is not None:
        looked.append(f"{Path(folder).resolve()} and its parents")
    raise SolverError(
        where, f"a file {name!r} in {', '.join(looked)}", "none", "Check the name, or give a path."
    )


def test_seed(seed, index):
    """The seed of test net `index`, so that its random numbers are not those of the train net."""
    return int(RandomStream(seed).generator("test net", index).integers(1 << 63))

"""What a rank other than 0 says."""

import logging

import pytest

from demitasse.solvers.parallel import ALONE, joined, place
from demitasse.solvers.parallel.communicator import Communicator
from demitasse.solvers.parallel.join import _quiet


class Second(Communicator):
    rank, size = 1, 2


@pytest.fixture
def lines():
    """What two handlers of our logger write."""
    lines, logger = [], logging.getLogger("demitasse")
    handlers = [logging.Handler() for _ in range(2)]
    for handler in handlers:
        handler.emit = lambda record: lines.append(record.getMessage())
        logger.addHandler(handler)
    yield lines
    for handler in handlers:
        logger.removeHandler(handler)


def test_other_ranks_log_warnings_with_their_number(lines, capsys, caplog):
    log = logging.getLogger("demitasse.solver")
    caplog.set_level(logging.INFO, "demitasse.solver")
    with _quiet(Second()):
        log.info("Iteration %d", 5)
        log.warning("image %r is left out", "a.jpg")
        print("a table")
    assert lines == ["rank 1: image 'a.jpg' is left out"] * 2
    assert capsys.readouterr().out == ""
    log.warning("later")
    assert lines[2:] == ["later"] * 2


def test_a_process_on_its_own_is_left_alone(capsys):
    with joined(place({})) as communicator:
        print("a table")
    assert communicator is ALONE
    assert capsys.readouterr().out == "a table\n"
    with pytest.raises(ZeroDivisionError), joined(place({})):
        1 / 0  # noqa: B018

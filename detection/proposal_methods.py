"""Where the RoIs of Fast R-CNN come from: TRAIN.PROPOSAL_METHOD, TEST.PROPOSAL_METHOD."""

from ..engine.errors import DataError, closest
from .proposals import load_proposals
from .selective_search import selective_search_proposals

METHODS = ("gt", "selective_search", "rpn")


def proposals_for(dataset, method, cfg, rpn_file=None):
    """Proposals of a data set by a method's name, for `make_roidb` and `test_net`.

    Args:
        method: "gt", the objects themselves and nothing else; "selective_search", see
            selective_search.py; "rpn", those in `rpn_file`, which tools/rpn_generate.py writes.
        cfg: its DATA_DIR is where selective search keeps its results.

    Returns: {record name: (R, 4) or (R, 5)}, or None for "gt".

    Raises: DataError for an unknown method, "rpn" without a file, or a broken file.
    """
    if method == "gt":
        return None
    if method == "selective_search":
        return selective_search_proposals(dataset, cfg.DATA_DIR)
    if method != "rpn":
        hint = closest(method, METHODS) or f"Methods are {', '.join(METHODS)}."
        raise DataError("PROPOSAL_METHOD", "a known method", repr(method), hint)
    if rpn_file is None:
        raise DataError(
            "PROPOSAL_METHOD rpn", "a file of proposals", "none",
            "Make one with tools/rpn_generate.py.",
        )  # fmt: skip
    return load_proposals(rpn_file)

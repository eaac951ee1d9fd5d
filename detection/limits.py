"""How many regions a net's Proposal layers propose, changed after the net was built."""

import contextlib
from dataclasses import fields

from ..layers.proposal import Proposal, ProposalLimits


def limits_of(section, **changes):
    """The `ProposalLimits` of a config's section TRAIN or TEST, with some of them changed."""
    values = {f.name: getattr(section, f.name) for f in fields(ProposalLimits)}
    return ProposalLimits(**{**values, **changes})


def set_limits(net, limits):
    """Have a net's Proposal layers use `ProposalLimits`, whatever its prototxt says."""
    for layer in _proposal_layers(net):
        layer.limits = limits


@contextlib.contextmanager
def proposal_limits(net, limits):
    """While the context lasts, a net's Proposal layers use `ProposalLimits`."""
    before = [(layer, layer.limits) for layer in _proposal_layers(net)]
    set_limits(net, limits)
    try:
        yield
    finally:
        for layer, own in before:
            layer.limits = own


@contextlib.contextmanager
def counts_later(net):
    """While the context lasts, a net's Proposal layers need not wait for how many they propose
    (`Proposal.settle`). Gives these layers."""
    layers = _proposal_layers(net)
    for layer in layers:
        layer.counts_later = True
    try:
        yield layers
    finally:
        for layer in layers:
            layer.counts_later = False


def _proposal_layers(net):
    """The Proposal layers of a net of the engine or a `caffe.Net`."""
    layers = [n.layer for n in net.nodes] if hasattr(net, "nodes") else net.layers
    return [layer for layer in layers if isinstance(layer, Proposal)]

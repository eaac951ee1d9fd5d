"""What `debug_info: true` prints: the mean absolute value of everything computed."""

import logging

import numpy as np

log = logging.getLogger("demitasse.net")


def _mean_abs(array):
    return float(np.abs(array).mean()) if array.size else 0.0


def inputs(net):
    """Before a forward pass."""
    for name in net.inputs:
        log.info("    [Forward] Input %s data: %g", name, _mean_abs(net.blobs[name].host_data))


def forward(net, node):
    """After a layer ran forward."""
    for blob_id, top in zip(node.top_ids, node.tops):
        log.info(
            "    [Forward] Layer %s, top blob %s data: %g",
            node.name, net.blob_names[blob_id], _mean_abs(top.host_data),
        )  # fmt: skip
    for p in net.parameters:
        if net.nodes[p.layer] is node:
            log.info(
                "    [Forward] Layer %s, param blob %s data: %g",
                node.name, p.display_name, _mean_abs(p.blob.host_data),
            )  # fmt: skip


def backward(net, node):
    """After a layer ran backward."""
    for blob_id, bottom, needed in zip(node.bottom_ids, node.bottoms, node.propagate_down):
        if needed:
            log.info(
                "    [Backward] Layer %s, bottom blob %s diff: %g",
                node.name, net.blob_names[blob_id], _mean_abs(bottom.host_diff),
            )  # fmt: skip
    for k, blob in enumerate(node.layer.blobs):
        if node.layer.param_propagate_down[k]:
            log.info(
                "    [Backward] Layer %s, param blob %d diff: %g",
                node.name, k, _mean_abs(blob.host_diff),
            )  # fmt: skip


def all_parameters(net):
    """After a whole backward pass."""
    blobs = [p.blob for p in net.learnable]
    data = [np.float64(b.host_data.ravel()) for b in blobs]
    diff = [np.float64(b.host_diff.ravel()) for b in blobs]
    log.info(
        "    [Backward] All net params (data, diff): L1 norm = (%g, %g); L2 norm = (%g, %g)",
        sum(np.abs(v).sum() for v in data), sum(np.abs(v).sum() for v in diff),
        sum(v @ v for v in data) ** 0.5, sum(v @ v for v in diff) ** 0.5,
    )  # fmt: skip

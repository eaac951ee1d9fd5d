"""A net's passes: which layers run, what is fused, who watches, and when memory goes back.

They are functions of a `net.Net`, whose methods `forward` and `backward` call them.
"""

from . import debug
from .errors import OutOfMemoryError
from .node import check_tops_shaped, name_layer
from .phase import Phase


def run(node, verb, function, *args):
    """function(*args), whose errors say that they come from a verb of this node."""
    try:
        return function(*args)
    except Exception as e:
        name_layer(e, node, verb)
        raise


def forward(net, start, end):
    """Run layers `start` to `end` (indices, both included) and return the weighted loss."""
    if start == 0:
        net.context.passes = net.context.shard.number(net.passes)
        net.passes += 1
    if net.debug_info:
        debug.inputs(net)
    watched = net.debug_info or net.before_forward or net.after_forward
    memory = _begin_memory(net, start, end, Phase.TEST)
    loss, done = 0.0, 0
    for i in range(start, end + 1):
        node = net.nodes[i]
        for callback in net.before_forward:
            callback(i)
        if done:
            done -= 1  # by an earlier node
        else:
            done = node.fused if i + node.fused <= end and not watched else 0
            _forward_node(node, done > 0, net.nodes)
        for weight, top in zip(node.loss_weights, node.tops):
            if weight:
                loss = loss + weight * _sum(net, top)
        if memory:
            memory.after(i)
        for callback in net.after_forward:
            callback(i)
        if net.debug_info:
            debug.forward(net, node)
    if memory:
        memory.end()
    return loss


def _sum(net, top):
    # The sum of a blob, left on the device.
    if net.device.is_host:
        return float(top.array.sum())
    return top.array.reshape(()) if top.count == 1 else top.array.sum()


def _forward_node(node, fused, nodes):
    try:
        node.layer.reshape(node.bottoms, node.tops)
        if fused:
            node.forward_fused(node.bottoms, node.tops)
        else:
            node.layer.forward(node.bottoms, node.tops)
        if node.type == "Python":
            check_tops_shaped(node, nodes)
    except Exception as e:
        name_layer(e, node, "forward")
        raise


def backward(net, start, end):
    """Run layers `start` down to `end` (indices, both included) backward."""
    memory = _begin_memory(net, end, start, Phase.TRAIN)
    watched = net.debug_info or net.before_backward or net.after_backward
    done = set()  # nodes whose gradient has been computed with that of one after them
    for i in range(start, end - 1, -1):
        node = net.nodes[i]
        for callback in net.before_backward:
            callback(i)
        if memory:
            memory.before(i)
        if node.needs_backward and i not in done:
            fused = node.also_backward >= end and not watched
            if fused:
                done.add(node.also_backward)
            verb = node.backward_fused if fused else node.layer.backward
            run(node, "backward", verb, node.tops, node.propagate_down, node.bottoms)
            if net.debug_info:
                debug.backward(net, node)
        if memory:
            memory.after(i)
        for callback in (*net.after_backward, *net.after_gradients):
            callback(i)
    if memory:
        memory.end()
    if net.debug_info and end == 0:
        debug.all_parameters(net)


def _begin_memory(net, first, last, phase):
    # The memory plan, if a run from node `first` to `last` is one that it is made for.
    if net.memory is None:
        return None
    net.memory.begin()
    if first != 0 or last != len(net.nodes) - 1 or net.phase != phase:
        return None
    try:
        net.memory.start()
    except MemoryError as error:
        raise OutOfMemoryError.at(f"net {net.name!r}, gradients", error) from error
    return net.memory

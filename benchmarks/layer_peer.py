"""PyTorch's side of layers.py: the same operations, in a process of its own."""

import time


def serve(connection, threads):
    """Answer ("case", case, batch, mode) by None, and ("run", count) by the seconds of one pass."""
    import torch

    torch.set_num_threads(threads)
    run = None
    while True:
        try:
            command, *arguments = connection.recv()
        except EOFError:
            return
        if command == "case":
            run = None  # its memory first
            run = _passes(torch, *arguments)
            connection.send(run is not None)
        else:
            start = time.perf_counter()
            for _ in range(arguments[0]):
                run()
            connection.send((time.perf_counter() - start) / arguments[0])


def _passes(torch, case, batch, mode):
    # A function that does one pass, or None if there is none to do.
    function, weights = operation(torch, case, mode != "test")
    inputs = [torch.from_numpy(x) for x in case.inputs(batch)]
    if mode == "test":

        def test():
            with torch.inference_mode():
                function(*inputs)

        return test if function else None
    if function is None:
        return None
    sources = inputs[:1] if case.kind in ("roi", "softmax_loss") else inputs
    for x in (*sources, *weights):
        x.requires_grad_(True)
    if mode == "train":
        return lambda: function(*inputs)
    y = function(*inputs)
    ys = y if isinstance(y, (tuple, list)) else [y]
    dys = [torch.ones_like(y) for y in ys]
    wanted = [*sources, *weights]
    return lambda: torch.autograd.grad(ys, wanted, dys, retain_graph=True)


def operation(torch, case, training):
    """(function of the inputs, weights it uses); the function is None where PyTorch has none."""
    f = torch.nn.functional
    o, channels = case.options, case.shapes[0][0]
    plain = {
        "relu": f.relu, "elu": f.elu, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
        "max_pool": lambda x: f.max_pool2d(x, **o),
        "average_pool": lambda x: f.avg_pool2d(x, **o),
        "across_channels": lambda x: f.local_response_norm(x, 5, 1e-4, 0.75),
        "eltwise_sum": torch.add, "eltwise_prod": torch.mul, "eltwise_max": torch.maximum,
        "concat": lambda *x: torch.cat(x, 1),
        "slice": lambda x: [part.contiguous() for part in x.chunk(4, 1)],
        "dropout": lambda x: f.dropout(x, 0.5, training),
        "softmax": lambda x: f.softmax(x, 1),
        "softmax_loss": lambda x, label: f.cross_entropy(x, label.long()),
    }  # fmt: skip
    if case.kind in plain:
        return plain[case.kind], []
    ones, zeros = torch.ones(channels), torch.zeros(channels)
    if case.kind == "prelu":
        slope = torch.full((channels,), 0.25)
        return (lambda x: f.prelu(x, slope)), [slope]
    if case.kind == "batch_norm":
        return (lambda x: f.batch_norm(x, zeros, ones.clone(), training=training)), []
    if case.kind == "scale":
        scale, bias = ones.view(-1, 1, 1), zeros.view(-1, 1, 1)
        return (lambda x: torch.addcmul(bias, x, scale)), [scale, bias]
    if case.kind == "linear":
        weight, bias = torch.full((o["outputs"], channels), 0.01), torch.zeros(o["outputs"])
        return (lambda x: f.linear(x, weight, bias)), [weight, bias]
    return None, []

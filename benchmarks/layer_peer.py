"""PyTorch's side of layers.py: the same operations, in a process of its own."""

import time

from layer_cases import sample


def serve(connection, threads):
    """Answer commands.

    ("case", case, batch, mode, arrays), by whether there is such an operation. `arrays` are the
    values of the layer's parameters. ("results",), by samples of what a pass computes: tops, or
    gradients. ("run", count), by the seconds of one pass.
    """
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
        elif command == "results":
            connection.send([sample(tensor.detach()) for tensor in run()])
        else:
            start = time.perf_counter()
            for _ in range(arguments[0]):
                run()
            connection.send((time.perf_counter() - start) / arguments[0])


def _passes(torch, case, batch, mode, arrays):
    # A function that does one pass and returns its results, or None if there is none to do.
    if mode == "update":
        return _update(torch, case, batch)
    function, weights = operation(torch, case, mode != "test", arrays)
    inputs = [torch.from_numpy(x) for x in case.inputs(batch)]
    if function is None:
        return None

    def forward():
        y = function(*inputs)
        return y if isinstance(y, (tuple, list)) else [y]

    if mode == "test":
        return torch.inference_mode()(forward)
    wanted = [*inputs[: case.sources], *weights]
    for x in wanted:
        x.requires_grad_(True)
    if mode == "train":
        return forward
    ys = forward()
    dys = [torch.from_numpy(case.slopes(y.shape)) for y in ys]
    return lambda: torch.autograd.grad(ys, wanted, dys, retain_graph=True)


def _update(torch, case, batch):
    (data,) = (torch.from_numpy(x) for x in case.inputs(batch))
    data.grad = torch.from_numpy(case.slopes(data.shape))
    optimizer = torch.optim.SGD([data], **case.options, fused=True)

    def update():
        optimizer.step()
        return [data]

    return update


def operation(torch, case, training, arrays):
    """(function of the inputs, weights it uses); the function is None where PyTorch has none.

    The weights have the values of `arrays`, those of our layer's parameters.
    """
    f = torch.nn.functional
    o = case.options
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
        "mvn": lambda x: f.instance_norm(x, eps=1e-9),
        "reduction": lambda x: x.sum((1, 2, 3)),
        "smooth_l1": lambda *x: _smooth_l1(f, *x, **o),
    }  # fmt: skip
    if case.kind in plain:
        return plain[case.kind], []
    weights = [torch.tensor(a) for a in arrays]
    if case.kind in ("lstm", "rnn"):
        return _recurrent(torch, case, weights)
    if case.kind == "batch_norm":
        mean, variance, _ = weights
        return (lambda x: f.batch_norm(x, mean, variance, training=training)), []
    if case.kind == "scale":
        weights = [w.view(-1, 1, 1) for w in weights]
    functions = {
        "prelu": f.prelu,
        "scale": lambda x, scale, bias: torch.addcmul(bias, x, scale),
        "linear": f.linear,
        "convolution": lambda *x: f.conv2d(*x, **o),
        "deconvolution": lambda *x: f.conv_transpose2d(*x, **o),
        "embed": lambda x, table: f.embedding(x.long(), table),
    }
    if case.kind not in functions:
        return None, []
    return (lambda *x: functions[case.kind](*x, *weights)), weights


def _smooth_l1(f, prediction, target, inside, outside, beta):
    d = (prediction - target) * inside
    losses = f.smooth_l1_loss(d, d.new_zeros(()).expand_as(d), reduction="none", beta=beta)
    return (losses * outside).sum() / len(prediction)


def _recurrent(torch, case, weights):
    inputs, outputs = case.shapes[0][1], case.options["outputs"]
    from_input, bias, from_state, *transform = weights
    if case.kind == "lstm":  # Caffe's gates are i, f, o, g, PyTorch's i, f, g, o
        i, f, o, g = (slice(k * outputs, (k + 1) * outputs) for k in range(4))
        from_input, bias, from_state = (
            torch.cat([w[i], w[f], w[g], w[o]]) for w in (from_input, bias, from_state)
        )
    module = getattr(torch.nn, case.kind.upper())(inputs, outputs)
    with torch.no_grad():
        module.weight_ih_l0.copy_(from_input)
        module.bias_ih_l0.copy_(bias)
        module.weight_hh_l0.copy_(from_state)
        module.bias_hh_l0.zero_()
    used = [module.weight_ih_l0, module.bias_ih_l0, module.weight_hh_l0, *transform]
    if not transform:
        return (lambda x, _: module(x)[0]), used
    linear = torch.nn.functional.linear
    return (lambda x, _: torch.tanh(linear(module(x)[0], *transform))), used

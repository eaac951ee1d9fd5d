"""The lines that debug_info has a net log."""

import logging

import numpy as np
from small_nets import TWO, build, randomise


def test_debug_info(caplog):
    with caplog.at_level(logging.INFO, "demitasse.net"):
        text = TWO % ('param { name: "w" }', 'param { name: "w" lr_mult: 0 }')
        net = build("debug_info: true " + text)
        randomise(net, ("x", "t"))
        caplog.clear()
        net.forward()
        net.backward()
    lines = [r.getMessage() for r in caplog.records]

    def mean(name, what="data"):
        return f"{np.abs(getattr(net.blobs[name], what)).mean():g}"

    assert f"    [Forward] Layer a, top blob h data: {mean('h')}" in lines
    weight = net.params["a"][0]
    value = f"{np.abs(weight.data).mean():g}"
    assert f"    [Forward] Layer a, param blob w data: {value}" in lines
    assert f"    [Forward] Layer b, param blob w data: {value}" in lines
    assert any(line.startswith("    [Forward] Layer b, param blob 1 data: ") for line in lines)
    assert f"    [Backward] Layer b, bottom blob h diff: {mean('h', 'diff')}" in lines
    assert not any("[Backward] Layer b, param blob 0" in line for line in lines)
    assert not any("[Backward] Layer a, bottom blob" in line for line in lines)
    value = f"{np.abs(weight.diff).mean():g}"
    assert f"    [Backward] Layer a, param blob 0 diff: {value}" in lines
    assert "All net params (data, diff): L1 norm = (" in lines[-1]
    caplog.clear()
    net.debug_info = False
    net.forward()
    assert not caplog.records

"""Old nets and solvers become current ones as in Caffe's upgrade_proto.cpp."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from demitasse.engine import upgrade, upgrade_v0
from demitasse.engine.errors import ModelFileError
from demitasse.engine.proto import caffe_pb2
from demitasse.engine.prototxt import parse_text, read_net

V1NET = Path(__file__).parents[1] / "golden" / "interop" / "v1net"
V1 = caffe_pb2.V1LayerParameter


def upgraded(text):
    net = parse_text(text, caffe_pb2.NetParameter)
    assert upgrade.net_needs_upgrade(net)
    upgrade.upgrade_net(net, "old.prototxt")
    assert not net.layers and not net.input
    return net


def check(old, new):
    expected = text_format.Parse(new, caffe_pb2.NetParameter())
    assert upgraded(old) == expected
    assert upgrade.upgrade_net(expected) == expected


def error_of(text):
    with pytest.raises(ModelFileError) as error:
        upgraded(text)
    return str(error.value)


# -------------------------------------------------------------------------------------------- V1


def test_v1_layer():
    check(
        """
        name: "n" force_backward: true
        layers {
          name: "conv" type: CONVOLUTION bottom: "x" top: "y"
          include { phase: TRAIN stage: "s" } exclude { phase: TEST }
          param: "w" param: "b" blob_share_mode: PERMISSIVE
          blobs_lr: 1 blobs_lr: 2 blobs_lr: 0.5 weight_decay: 1 weight_decay: 0 loss_weight: 0.25
          convolution_param { num_output: 3 kernel_size: 2 weight_filler { type: "xavier" } }
          blobs { shape { dim: 1 } data: 7 }
        }
        layers { type: SOFTMAX_LOSS loss_param { ignore_label: 3 } }
        layers { blob_share_mode: STRICT blob_share_mode: PERMISSIVE }
        """,
        """
        name: "n" force_backward: true
        layer {
          name: "conv" type: "Convolution" bottom: "x" top: "y"
          include { phase: TRAIN stage: "s" } exclude { phase: TEST }
          param { name: "w" share_mode: PERMISSIVE lr_mult: 1 decay_mult: 1 }
          param { name: "b" lr_mult: 2 decay_mult: 0 }
          param { lr_mult: 0.5 }
          loss_weight: 0.25
          convolution_param { num_output: 3 kernel_size: 2 weight_filler { type: "xavier" } }
          blobs { shape { dim: 1 } data: 7 }
        }
        layer { type: "SoftmaxWithLoss" loss_param { ignore_label: 3 } }
        layer { param { share_mode: STRICT } param { share_mode: PERMISSIVE } }
        """,
    )


def test_every_v1_type_has_its_name():
    assert set(upgrade.V1_TYPES) == set(V1.LayerType.keys())
    assert set(upgrade.SOLVER_TYPES) == set(caffe_pb2.SolverParameter.SolverType.keys())
    assert set(upgrade_v0.V0_TYPES.values()) <= set(V1.LayerType.keys())


def test_every_v1_parameter_is_carried_over():
    for field in V1.DESCRIPTOR.fields:
        if not field.name.endswith("_param"):
            continue
        old, new = V1(), caffe_pb2.LayerParameter()
        getattr(old, field.name).SetInParent()
        upgrade.upgrade_v1_layer(old, new)
        assert [f.name for f, _ in new.ListFields()] == [field.name]


@pytest.mark.parametrize(
    ("kind", "param"),
    [
        ("DATA", "data_param"),
        ("IMAGE_DATA", "image_data_param"),
        ("WINDOW_DATA", "window_data_param"),
    ],
)
def test_v1_transform_fields_move(kind, param):
    check(
        f'layers {{ type: {kind} {param} {{ source: "s" batch_size: 2 scale: 0.5 mean_file: "m"'
        f" crop_size: 3 mirror: true }} transform_param {{ force_color: true }} }}",
        f'layer {{ type: "{upgrade.V1_TYPES[kind]}" {param} {{ source: "s" batch_size: 2 }}'
        f' transform_param {{ force_color: true scale: 0.5 mean_file: "m" crop_size: 3'
        f" mirror: true }} }}",
    )


def test_current_data_layers_keep_their_fields():
    text = 'layer { type: "Data" data_param { scale: 0.5 mirror: true } }'
    net = parse_text(text, caffe_pb2.NetParameter)
    assert not upgrade.net_needs_upgrade(net)
    assert upgrade.upgrade_net(net).layer[0].data_param.scale == 0.5


def test_golden_v1_net():
    net = read_net(V1NET / "net.prototxt")
    types = ["Input", "Convolution", "ReLU", "LRN", "Pooling", "InnerProduct", "Dropout", "Softmax"]
    assert [layer.type for layer in net.layer] == types
    conv = net.layer[1]
    assert [(p.lr_mult, p.decay_mult) for p in conv.param] == [(1, 1), (2, 0)]
    assert list(net.layer[0].input_param.shape[0].dim) == [2, 3, 9, 8]


def test_both_kinds_of_layers():
    text = error_of('layer { name: "a" } layers { name: "b" } layers { name: "c" }')
    assert text.startswith("old.prototxt: expected either") and "found 1 and 2" in text


# -------------------------------------------------------------------------------------------- V0


def test_v0_net():
    check(
        """
        name: "CaffeNet" input: "data" input_dim: [1, 3, 8, 8] force_backward: true
        layers { layer { name: "pad1" type: "padding" pad: 2 } bottom: "data" top: "pad1" }
        layers {
          layer {
            name: "conv1" type: "conv" num_output: 96 kernelsize: 11 stride: 4 group: 2
            biasterm: false weight_filler { type: "gaussian" std: 0.01 } bias_filler { value: 1 }
            blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0 blobs { num: 1 }
          }
          bottom: "pad1" top: "conv1"
        }
        layers { layer { name: "pool1" type: "pool" pool: AVE kernelsize: 3 stride: 2 pad: 1 }
                 bottom: "conv1" top: "pool1" }
        layers { layer { name: "norm1" type: "lrn" local_size: 3 alpha: 0.1 beta: 0.5 k: 2 }
                 bottom: "pool1" top: "norm1" }
        layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.2 }
                 bottom: "norm1" top: "norm1" }
        layers { layer { name: "cat" type: "concat" concat_dim: 0 }
                 bottom: "norm1" bottom: "data" top: "cat" }
        layers { layer { name: "fc" type: "innerproduct" num_output: 10 biasterm: true }
                 bottom: "cat" top: "fc" }
        layers { layer { name: "out" type: "hdf5_output" hdf5_output_param { file_name: "f" } }
                 bottom: "fc" }
        """,
        """
        name: "CaffeNet" force_backward: true
        layer { name: "input" type: "Input" top: "data"
                input_param { shape { dim: [1, 3, 8, 8] } } }
        layer {
          name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
          param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 } blobs { num: 1 }
          convolution_param {
            num_output: 96 kernel_size: 11 stride: 4 group: 2 pad: 2 bias_term: false
            weight_filler { type: "gaussian" std: 0.01 } bias_filler { value: 1 }
          }
        }
        layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1"
                pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }
        layer { name: "norm1" type: "LRN" bottom: "pool1" top: "norm1"
                lrn_param { local_size: 3 alpha: 0.1 beta: 0.5 k: 2 } }
        layer { name: "drop" type: "Dropout" bottom: "norm1" top: "norm1"
                dropout_param { dropout_ratio: 0.2 } }
        layer { name: "cat" type: "Concat" bottom: "norm1" bottom: "data" top: "cat"
                concat_param { concat_dim: 0 } }
        layer { name: "fc" type: "InnerProduct" bottom: "cat" top: "fc"
                inner_product_param { num_output: 10 bias_term: true } }
        layer { name: "out" type: "HDF5Output" bottom: "fc" hdf5_output_param { file_name: "f" } }
        """,
    )


def test_v0_data_layers():
    check(
        """
        layers { layer { name: "d" type: "data" source: "db" batchsize: 4 rand_skip: 3 scale: 0.5
                         meanfile: "m" cropsize: 5 mirror: true } top: "d" top: "l" }
        layers { layer { name: "i" type: "images" source: "s" batchsize: 2 new_height: 7
                         new_width: 8 shuffle_images: true } top: "i" }
        layers { layer { name: "w" type: "window_data" source: "v" det_fg_threshold: 0.6
                         det_bg_threshold: 0.1 det_fg_fraction: 0.5 det_context_pad: 16
                         det_crop_mode: "square" } top: "w" }
        layers { layer { name: "h" type: "hdf5_data" source: "h5" batchsize: 6 } top: "h" }
        layers { layer { name: "g" type: "infogain_loss" source: "H" } bottom: "i" bottom: "l" }
        """,
        """
        layer { name: "d" type: "Data" top: "d" top: "l"
                transform_param { scale: 0.5 mean_file: "m" crop_size: 5 mirror: true }
                data_param { source: "db" batch_size: 4 rand_skip: 3 } }
        layer { name: "i" type: "ImageData" top: "i" image_data_param {
                source: "s" batch_size: 2 new_height: 7 new_width: 8 shuffle: true } }
        layer { name: "w" type: "WindowData" top: "w" window_data_param {
                source: "v" fg_threshold: 0.6 bg_threshold: 0.1 fg_fraction: 0.5 context_pad: 16
                crop_mode: "square" } }
        layer { name: "h" type: "HDF5Data" top: "h" hdf5_data_param { source: "h5" batch_size: 6 } }
        layer { name: "g" type: "InfogainLoss" bottom: "i" bottom: "l"
                infogain_loss_param { source: "H" } }
        """,
    )


def test_v0_field_of_another_type_is_ignored_with_a_warning(caplog):
    net = upgraded('layers { layer { name: "r" type: "relu" num_output: 3 } }')
    assert net == parse_text('layer { name: "r" type: "ReLU" }', caffe_pb2.NetParameter)
    assert "ignored num_output" in caplog.text


def test_v0_errors():
    assert "'relu'" in error_of('layers { layer { name: "r" type: "rleu" } }')
    text = error_of('layers { layer { name: "r" type: "relu" } bottom: "x" }')
    assert "layer 'r'" in text and "found 'x'" in text
    text = error_of(
        'input: "x" layers { layer { name: "p" type: "padding" pad: 1 } bottom: "x" top: "p" }'
        'layers { layer { name: "r" type: "relu" } bottom: "p" top: "r" }'
    )
    assert "layer 'p' of type 'padding'" in text and "'relu'" in text


# ---------------------------------------------------------------------------------------- inputs


def test_input_shapes():
    check(
        'input: "a" input: "b" input_shape { dim: 2 } input_shape { dim: 3 dim: 4 }'
        'layer { name: "r" type: "ReLU" }',
        'layer { name: "input" type: "Input" top: "a" top: "b" input_param {'
        " shape { dim: 2 } shape { dim: 3 dim: 4 } } }"
        'layer { name: "r" type: "ReLU" }',
    )


def test_input_without_shape_goes():
    check('name: "n" input: "a"', 'name: "n"')


def test_input_errors():
    assert "four input_dim for each input, found 3 for 1" in error_of(
        'input: "a" input_dim: [1,2,3]'
    )
    assert "one input_shape for each" in error_of('input: "a" input: "b" input_shape { dim: 1 }')


def test_batch_norm():
    net = parse_text(
        'layer { type: "BatchNorm" param { name: "m" lr_mult: 1 }'
        " param { decay_mult: 2 } param {} }",
        caffe_pb2.NetParameter,
    )
    assert upgrade.net_needs_upgrade(net)
    upgrade.upgrade_net(net)
    assert [p.name for p in net.layer[0].param] == ["m", "", ""]
    assert all(p.lr_mult == p.decay_mult == 0 for p in net.layer[0].param)
    other = parse_text('layer { type: "Scale" param {} param {} param {} }', caffe_pb2.NetParameter)
    assert not upgrade.net_needs_upgrade(other)


# --------------------------------------------------------------------------------------- solvers


@pytest.mark.parametrize(("old", "new"), upgrade.SOLVER_TYPES.items())
def test_solver_type(old, new):
    solver = parse_text(f"solver_type: {old}", caffe_pb2.SolverParameter)
    assert upgrade.solver_needs_upgrade(solver)
    assert upgrade.upgrade_solver(solver).type == new
    assert not solver.HasField("solver_type") and not upgrade.solver_needs_upgrade(solver)


def test_solver_with_both_types():
    solver = parse_text('solver_type: ADAM type: "SGD"', caffe_pb2.SolverParameter)
    with pytest.raises(ModelFileError, match=r"solver.prototxt: expected `type` or the old"):
        upgrade.upgrade_solver(solver, "solver.prototxt")


def test_inline_nets():
    text = "net_param { layers { type: RELU } } test_net_param { layers { type: TANH } }"
    solver = upgrade.upgrade_solver(parse_text(text, caffe_pb2.SolverParameter))
    assert solver.net_param.layer[0].type == "ReLU"
    assert solver.test_net_param[0].layer[0].type == "TanH"

"""Two nets for the tests of `caffe.Net`, and values for the inputs of one."""

import numpy as np

DEPLOY = """
name: "small"
layer { name: "in" type: "Input" top: "data" top: "scale"
        input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } shape { dim: 2 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 5 kernel_size: 3
                            weight_filler { type: "gaussian" std: 1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
        pooling_param { pool: AVE global_pooling: true } }
layer { name: "flat" type: "Flatten" bottom: "pool" top: "flat" }
layer { name: "mul" type: "Eltwise" bottom: "flat" bottom: "scale" top: "mul"
        eltwise_param { operation: PROD } }
layer { name: "ip" type: "InnerProduct" bottom: "mul" top: "score"
        inner_product_param { num_output: 2 weight_filler { type: "gaussian" std: 1 } } }
force_backward: true
"""
TRAIN = """
name: "train"
layer { name: "data" type: "DummyData" top: "x" top: "label"
        dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 }
                           data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" include { phase: TRAIN } }
layer { name: "big" type: "InnerProduct" bottom: "ip" top: "big"
        include { min_level: 1 } inner_product_param { num_output: 7 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
        loss_weight: 2 exclude { stage: "deploy" } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" include { stage: "deploy" } }
"""
rng = np.random.default_rng(0)


def data(n=2):
    """Random inputs of DEPLOY, `n` samples."""
    return {"data": rng.normal(size=(n, 3, 4, 4)), "scale": rng.normal(size=(n, 5))}

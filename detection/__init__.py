"""The R-CNN family: data sets, training, testing and evaluation of detectors."""

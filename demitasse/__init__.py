"""Demitasse: Caffe, in a small cup. The public API is the package `caffe`."""

__version__ = "0.1.0"

"""The engine: blobs, layers, nets, devices, files. It knows no layer by name."""

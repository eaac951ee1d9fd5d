"""Renews caffe.desc, the compiled form of caffe.proto that the package loads.

Run it after an edit of caffe.proto, with `pip install grpcio-tools` done in any environment:

    python engine/proto/compile.py
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Writes caffe.desc (a FileDescriptorSet); returns the compiler's exit status."""
    from grpc_tools import protoc

    out = HERE / "caffe.desc"
    return protoc.main(["protoc", f"-I{HERE}", f"--descriptor_set_out={out}", "caffe.proto"])


if __name__ == "__main__":
    sys.exit(main())

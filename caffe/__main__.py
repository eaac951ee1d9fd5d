"""The command `caffe`: train, test, time, device_query, with the flags of Caffe's binary."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())

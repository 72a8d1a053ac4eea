"""`python -m onnx_asgnas` is `onnx-asgnas`."""

import sys

from onnx_asgnas.cli import main

if __name__ == "__main__":
    sys.exit(main())

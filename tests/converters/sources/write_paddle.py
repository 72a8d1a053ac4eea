"""Write inference models of paddle.vision into a folder: run by the environment `paddle`."""

from __future__ import annotations

import sys
from pathlib import Path

import paddle
from paddle.static import InputSpec
from paddle.vision import models

paddle.seed(0)
for name, network, channels, size in (
    ("resnet18", models.resnet18(num_classes=10), 3, 64),
    ("mobilenet_v2", models.mobilenet_v2(num_classes=10), 3, 64),
    ("densenet121", models.densenet121(num_classes=10), 3, 64),
    ("lenet", models.LeNet(), 1, 28),
):
    network.eval()
    spec = InputSpec([None, channels, size, size], "float32", "image")
    paddle.jit.save(network, str(Path(sys.argv[1]) / name / "model"), input_spec=[spec])

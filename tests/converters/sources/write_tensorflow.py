"""Write saved models and a TensorFlow Lite file into a folder: run by the environment `tensorflow`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parent))
import keras_nets

folder = Path(sys.argv[1])
random = np.random.default_rng(0)
for name, network in (("mobilenet", keras_nets.mobilenet()), ("residual", keras_nets.residual())):
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    network.export(str(folder / name), verbose=False)
lite = tf.lite.TFLiteConverter.from_saved_model(str(folder / "mobilenet")).convert()
(folder / "mobilenet.tflite").write_bytes(lite)

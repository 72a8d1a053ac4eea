"""Write saved models and TensorFlow Lite files into a folder: run by the environment `tensorflow`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parent))
import keras_nets
import tensorflow_nets

folder = Path(sys.argv[1])
for name in ("MobileNetV2", "EfficientNetB0"):
    keras_nets.application(name).export(str(folder / name), verbose=False)
    lite = tf.lite.TFLiteConverter.from_saved_model(str(folder / name)).convert()
    (folder / f"{name}.tflite").write_bytes(lite)
keras_nets.residual().export(str(folder / "residual"), verbose=False)
lenet = tensorflow_nets.LeNet()
serving = lenet.__call__.get_concrete_function(tf.TensorSpec((None, 28, 28, 1), name="image"))
tf.saved_model.save(lenet, str(folder / "LeNet"), signatures={"serving_default": serving})
(folder / "LeNet.tflite").write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([serving], lenet).convert())

"""Write a model of keras.applications as a .keras file into a folder: run by the environment `keras`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
sys.path.insert(0, str(Path(__file__).parent))
import keras_nets

keras_nets.application("DenseNet121", size=32).save(Path(sys.argv[1]) / "densenet121.keras")

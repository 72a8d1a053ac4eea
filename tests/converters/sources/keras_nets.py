"""Keras models for the tests of converters."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers


def residual(width: int = 8) -> keras.Model:
    """Two convolutions around a residual, with batch normalisation as it is before any training."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(width, 3, padding="same", use_bias=False, name="stem")(image)
    x = layers.ReLU()(layers.BatchNormalization(name="stem_bn")(x))
    y = layers.Conv2D(width, 3, padding="same", use_bias=False, name="conv")(x)
    y = layers.BatchNormalization(name="conv_bn")(y)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(10, name="head")(x))


def two_inputs() -> keras.Model:
    """A dict of an image's features and ids."""
    keras.utils.set_random_seed(0)
    features, ids = keras.Input((12,), name="features"), keras.Input((5,), dtype="int32", name="ids")
    x = layers.Dense(16, activation="relu")(features)
    y = layers.Flatten()(layers.Embedding(9, 4)(ids))
    return keras.Model({"features": features, "ids": ids}, layers.Dense(3)(layers.Concatenate()([x, y])))


def recurrent() -> keras.Model:
    """An LSTM over a sequence of an open length, and attention over what it gives."""
    keras.utils.set_random_seed(0)
    sequence = keras.Input((None, 6), name="sequence")
    x = layers.Conv1D(12, 3, padding="same", activation="gelu")(sequence)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 8)(x, x))
    return keras.Model(sequence, layers.Dense(3)(layers.GlobalMaxPooling1D()(x)))


def application(name: str = "MobileNetV2", size: int = 64) -> keras.Model:
    """A published architecture of keras.applications, its normalisations with statistics as after a training."""
    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3), classes=10)
    random = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return network

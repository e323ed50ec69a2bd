"""Weights of other frameworks and files of Keras, loaded into our networks."""

from keras_googlenet.weights.conversion import convert
from keras_googlenet.weights.published import load_published, publishes_aux_heads

__all__ = ["convert", "load_published", "publishes_aux_heads"]

"""Published weights: one reader a format, one porting table a source, one way into a network."""

from keras_googlenet.weights.conversion import convert
from keras_googlenet.weights.published import load_published, publishes_aux_heads

__all__ = ["convert", "load_published", "publishes_aux_heads"]

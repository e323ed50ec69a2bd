"""Small pictures of chosen examples, as data that an HTML page can hold."""

import base64
from collections.abc import Sequence

import tensorflow as tf

from keras_googlenet.data import preprocessing
from keras_googlenet.data.datasets import Split

_SIDE = 160  # pixels of the shorter side
_QUALITY = 85  # of the JPEG


def thumbnails(split: Split, numbers: Sequence[int]) -> list[str]:
    """Reads examples again and makes small pictures of them.

    Args:
        split: Where they are.
        numbers: Which, in any order.

    Returns:
        A `data:` address of a JPEG for each of `numbers`.
    """
    found = []
    for number in numbers:
        encoded, _ = split.read(number)
        small = preprocessing.resize_shorter_side(preprocessing.decode(encoded), _SIDE)
        pixels = tf.cast(tf.clip_by_value(tf.round(small), 0, 255), tf.uint8)
        jpeg = tf.io.encode_jpeg(pixels, quality=_QUALITY).numpy()
        found.append(f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}")
    return found

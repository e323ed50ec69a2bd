"""Class activation maps by GradientTape and NumPy, written from the papers' formulas.

They share nothing with the package but the layers of the network whose maps they compute.
"""

import keras
import numpy as np
import tensorflow as tf


def logits(network, head):
    """The head's output before its activation, as a tensor of the network."""
    dense = network.get_layer(head)
    kernel, bias = dense.weights
    return keras.layers.Lambda(lambda x: x @ tf.convert_to_tensor(kernel) + bias)(dense.input)


def watched(model, layer, head="main"):
    return keras.Model(model.inputs[0], [model.get_layer(layer).output, logits(model, head)])


def activations_and_gradients(model, inputs, class_index, layer, head="main"):
    network = watched(model, layer, head)
    with tf.GradientTape() as tape:
        maps, scores = network(inputs, training=False)
        gradient = tape.gradient(scores[:, class_index], maps)
    return maps.numpy().astype("float64"), gradient.numpy().astype("float64")


def gradcam(maps, gradient):
    return np.maximum((gradient.mean((1, 2), keepdims=True) * maps).sum(-1), 0)


def gradcam_plus_plus(maps, gradient):
    """Chattopadhay et al. 2018, equations 17 to 19, without the exponential's common factor.

    As in the authors' program the weights of a channel are divided by their sum.
    """
    denominator = 2 * gradient**2 + gradient**3 * maps.sum((1, 2), keepdims=True)
    alpha = gradient**2 / np.where(denominator == 0, 1, denominator)
    total = alpha.sum((1, 2), keepdims=True)
    alpha = alpha / np.where(total == 0, 1, total)
    weights = (alpha * np.maximum(gradient, 0)).sum((1, 2), keepdims=True)
    return np.maximum((weights * maps).sum(-1), 0)


def layercam(maps, gradient):
    return np.maximum((np.maximum(gradient, 0) * maps).sum(-1), 0)


def input_gradient(model, inputs, class_index, head="main"):
    network = keras.Model(model.inputs[0], logits(model, head))
    image = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(image)
        score = network(image, training=False)[:, class_index]
    return tape.gradient(score, image).numpy()


def scorecam(model, inputs, class_index, layer, corners_stretched):
    """Wang et al. 2020 without the baseline; `corners_stretched` resizes `(h, w)` to the input."""
    maps, scores = (output.numpy() for output in watched(model, layer)(inputs, training=False))
    network = keras.Model(model.inputs[0], logits(model, "main"))
    result = []
    for image, activation in zip(inputs, maps, strict=True):
        masks = [corners_stretched(activation[..., k]) for k in range(activation.shape[-1])]
        spread = [np.ptp(mask) + 1e-7 for mask in masks]
        masks = [(mask - mask.min()) / s for mask, s in zip(masks, spread, strict=True)]
        seen = np.stack([image * mask[..., None] for mask in masks]).astype("float32")
        scores = network(seen, training=False).numpy().astype("float64")
        exponential = np.exp(scores - scores.max(axis=1, keepdims=True))
        weights = (exponential / exponential.sum(axis=1, keepdims=True))[:, class_index]
        result.append(np.maximum((activation * weights).sum(-1), 0))
    return np.stack(result)


def stretch(coarse, size):
    """Linear interpolation between the centers of the cells, constant beyond the outer ones."""
    cells = len(coarse)
    centers = (np.arange(cells) + 0.5) * size / cells
    return _interpolate(coarse, centers, np.arange(size) + 0.5)


def stretch_corners(coarse, size):
    """Linear interpolation with the corner cells in the corner pixels."""
    return _interpolate(coarse, np.linspace(0, size - 1, len(coarse)), np.arange(size))


def _interpolate(coarse, centers, pixels):
    rows = np.stack([np.interp(pixels, centers, column) for column in coarse.T], axis=1)
    return np.stack([np.interp(pixels, centers, row) for row in rows])

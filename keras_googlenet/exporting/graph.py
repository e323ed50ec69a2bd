"""The inference graph: what remains of a network that only answers.

It is made once, for every format: batch normalisation is folded into the convolutions, activations
belong to the step before them, dropout and the auxiliary heads are gone, and the weights are plain
arrays.
"""

from typing import NamedTuple

import keras
import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import PROBABILITIES, inference_model, variant_of
from keras_googlenet.layers import LocalResponseNormalization


class Convolution(NamedTuple):
    """Convolution with a bias and, perhaps, ReLU.

    Attributes:
        kernel: `(height, width, in, out)` float32.
        bias: `(out,)` float32.
        strides: Pixels along both axes.
        padding: Zeros on each side, or "same".
        relu: Whether ReLU follows.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strides: int
    padding: int | str
    relu: bool = False


class MaxPool(NamedTuple):
    """Maximum over windows, with "same" padding."""

    window: int
    strides: int


class LocalResponse(NamedTuple):
    """`x / (bias + alpha * sum of squares over 2 * depth_radius + 1 channels) ** beta`."""

    channels: int
    depth_radius: int
    bias: float
    alpha: float
    beta: float

    def band(self) -> np.ndarray:
        """The sum over neighbours, times alpha, as a matrix: `(channels, channels)`."""
        channel = np.arange(self.channels)
        return self.alpha * (np.abs(channel[:, None] - channel) <= self.depth_radius)


class Channels(NamedTuple):
    """Some channels of a map."""

    first: int
    count: int


class Concatenate(NamedTuple):
    """Channels of several maps, one behind the other."""


class Mean(NamedTuple):
    """Mean over height and width: `(n, channels)`."""


class Dense(NamedTuple):
    """Linear layer `(in, out)` with the activation that makes its outputs probabilities."""

    kernel: np.ndarray
    bias: np.ndarray
    activation: str


class Step(NamedTuple):
    """An operation with its name and the names of the steps that it takes its inputs from."""

    name: str
    operation: NamedTuple
    inputs: tuple[str, ...]


class Graph(NamedTuple):
    """The main head of a network, from preprocessed image to probabilities.

    Attributes:
        variant: Key of `VARIANTS`; decides the preprocessing.
        image_size: Side of the pictures.
        classes: Number of outputs.
        steps: In the order in which they can be computed. The first takes `IMAGE`, the last is
            the classifier, the one before it gives the features.
    """

    variant: str
    image_size: int
    classes: int
    steps: list[Step]


IMAGE = "image"


def inference_graph(model: keras.Model) -> Graph:
    """Reads the inference graph out of a network.

    Args:
        model: Any GoogLeNet with a classifier; the main head is taken.

    Returns:
        The graph, whose arrays are copies.

    Raises:
        UserError: If the network has no classifier or no fixed image size, or gives logits.
    """
    check(model)
    network = inference_model(model)
    steps: dict[str, Step] = {}
    source = {id(network.inputs[0]): IMAGE}  # tensor -> step that computes it
    padding = 0
    for layer in network.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        tensors = layer.input if isinstance(layer.input, list) else [layer.input]
        inputs = tuple(source[id(tensor)] for tensor in tensors)
        source[id(layer.output)] = inputs[0]
        before = steps.get(inputs[0])
        if isinstance(layer, keras.layers.ZeroPadding2D):
            padding = layer.padding[0][0]
        elif isinstance(layer, keras.layers.BatchNormalization):
            steps[before.name] = before._replace(operation=_folded(before.operation, layer))
        elif isinstance(layer, keras.layers.ReLU):
            steps[before.name] = before._replace(operation=before.operation._replace(relu=True))
        elif not isinstance(layer, keras.layers.Dropout):
            steps[layer.name] = Step(layer.name, _operation(layer, padding), inputs)
            source[id(layer.output)] = layer.name
    size, classes = network.inputs[0].shape[1], network.outputs[0].shape[-1]
    return Graph(variant_of(model), size, classes, list(steps.values()))


def merge_siblings(graph: Graph) -> Graph:
    """Makes one convolution of those 1x1 ones that read the same map.

    An inception module has three. One wide product costs less than three narrow ones where each
    operation has to be started by itself, as in TensorFlow at batch 1.

    Args:
        graph: As `inference_graph` returns it.

    Returns:
        The same function with fewer convolutions; their outputs are cut out by `Channels`.
    """
    siblings: dict[tuple, list[Step]] = {}
    for step in graph.steps:
        if isinstance(step.operation, Convolution) and step.operation.kernel.shape[:2] == (1, 1):
            siblings.setdefault((step.inputs, step.operation.relu), []).append(step)
    steps = []
    for step in graph.steps:
        group = next(
            (group for group in siblings.values() if any(step is one for one in group)), [step]
        )
        if len(group) == 1:
            steps.append(step)
        elif step is group[0]:
            steps += _merged(group)
    return graph._replace(steps=steps)


def _merged(group: list[Step]) -> list[Step]:
    convolutions = [step.operation for step in group]
    wide = convolutions[0]._replace(
        kernel=np.concatenate([convolution.kernel for convolution in convolutions], axis=-1),
        bias=np.concatenate([convolution.bias for convolution in convolutions]),
    )
    name = f"{group[0].name}_and_reduces"
    steps, first = [Step(name, wide, group[0].inputs)], 0
    for step in group:
        count = len(step.operation.bias)
        steps.append(Step(step.name, Channels(first, count), (name,)))
        first += count
    return steps


def check(model: keras.Model):
    """Refuses a network that cannot be exported, before anything is made of it.

    Raises:
        UserError: As `inference_graph`.
    """
    network = inference_model(model)
    head = network.layers[-1]
    if not isinstance(head, keras.layers.Dense):
        raise UserError("the model ends in features; give one with its classifier.")
    if head.activation.__name__ not in PROBABILITIES:
        raise UserError(
            "the model ends in logits, but an export gives probabilities; build it with "
            'classifier_activation="softmax" and load its weights.'
        )
    height, width = network.inputs[0].shape[1:3]
    if height is None or height != width:
        raise UserError(
            f"the model takes images of {height}x{width}; an export needs one fixed square size."
        )


def _operation(layer: keras.layers.Layer, padding: int) -> NamedTuple:
    """Turns a layer into an operation; `padding` is what a layer before the first one padded."""
    if isinstance(layer, keras.layers.Conv2D):
        kernel = _array(layer.kernel)
        bias = _array(layer.bias) if layer.use_bias else np.zeros(layer.filters, "float32")
        same = layer.padding == "same"
        return Convolution(kernel, bias, layer.strides[0], "same" if same else padding)
    if isinstance(layer, keras.layers.MaxPooling2D):
        return MaxPool(layer.pool_size[0], layer.strides[0])
    if isinstance(layer, LocalResponseNormalization):
        channels = layer.input.shape[-1]
        return LocalResponse(channels, layer.depth_radius, layer.bias, layer.alpha, layer.beta)
    if isinstance(layer, keras.layers.Concatenate):
        return Concatenate()
    if isinstance(layer, keras.layers.GlobalAveragePooling2D):
        return Mean()
    if isinstance(layer, keras.layers.Dense):
        return Dense(_array(layer.kernel), _array(layer.bias), layer.activation.__name__)
    raise UserError(f"the model has a layer that no GoogLeNet has: {layer.name}.")


def _folded(convolution: Convolution, norm: keras.layers.BatchNormalization) -> Convolution:
    """Multiplies the scale of a normalisation into the kernel and its offset into the bias."""
    scale = 1 / np.sqrt(_array(norm.moving_variance).astype("float64") + norm.epsilon)
    if norm.scale:
        scale *= _array(norm.gamma)
    offset = _array(norm.beta) if norm.center else 0.0
    bias = (convolution.bias - _array(norm.moving_mean)) * scale + offset
    return convolution._replace(
        kernel=(convolution.kernel * scale).astype("float32"), bias=bias.astype("float32")
    )


def _array(variable) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable), "float32")

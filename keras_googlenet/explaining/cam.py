"""Where in an image the evidence for a class lies, by the methods of methods.py."""

import contextlib
import io
import weakref
from collections.abc import Sequence
from numbers import Integral

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.errors import UserError, nearest
from keras_googlenet.explaining.methods import METHODS
from keras_googlenet.googlenet import HEADS, TABLE_1
from keras_googlenet.imagenet import check_images
from keras_googlenet.labels import default_labels, find_class
from keras_googlenet.normal_form import check_alignment, copy_trunk, normal_form, trunk_inputs

LEAST_CELLS = 5  # across the default layer: with 3 (5b at 72 pixels) maps do not point
SCORECAM_CHANNELS = 256  # those that vary most: each costs a forward pass and a copy of the image
SMOOTHGRAD_SAMPLES = 25  # differs from the paper's 50: half the time, hardly another map
SMOOTHGRAD_NOISE = 0.15  # of the range of the pixels; Smilkov et al. 2017: 10% to 20%

ClassIndex = int | str | Sequence[int | str] | None


def gradcam(
    model: keras.Model,
    images: np.ndarray,
    class_index: ClassIndex = None,
    layer: str | None = "inception_5b_output",
    method: str = "gradcam",
    *,
    head: str = "main",
    labels: Sequence[str] | None = None,
) -> np.ndarray:
    """Maps the evidence for a class over each image, through tf-keras-vis.

    Args:
        model: A GoogLeNet, as `normal_form` takes it. It is not changed.
        images: `(n, h, w, 3)` RGB in [0, 255] at the model's size, of any numeric dtype; the
            variant's preprocessing is applied inside, unless the model has its own.
        class_index: A class by index, wnid or name, or one for each image; the best class of
            each image if not given.
        layer: Name of the layer whose channels are weighted. `None` for the last module that the
            head sees with at least 5 cells across: 5b at 224 pixels, 4e at 72. "saliency" and
            "smoothgrad" use no layer.
        method: A key of `explaining.methods.METHODS`, which has the formulas and sources.
        head: Whose logit is explained: "main", "aux1" or "aux2".
        labels: Class names, for a class that is given by name.

    Returns:
        `(n, h, w)` float32 at input size, not normalized, at least 0.

    Raises:
        ValueError: If there is no such layer, class, method or head, `model` is not a GoogLeNet, or
            `images` have another shape, are none, or hold NaN.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {list(METHODS)}. Received: {method=}.")
    network, inputs = explained(model, images, head)
    layer = layer or default_layer(network)
    check_layer(network, layer)
    classes = choose_classes(network, inputs, class_index, labels)
    maps = map_logits(network, inputs, classes, layer, method)
    size = np.shape(images)[1:3]  # that of the inputs, unless the model resizes
    return maps if maps.shape[1:] == size else stretch(maps, size)


def map_logits(
    network: keras.Model, inputs: np.ndarray, classes: Sequence[int], layer: str, method: str
) -> np.ndarray:
    """Computes the maps of `gradcam` for a `logit_network` and preprocessed inputs."""
    inputs = check_images(inputs, network.inputs[0].shape[1:3], pixels=False)
    maps = globals()[METHODS[method].function](network, classes, inputs, layer)
    return stretch(maps, inputs.shape[1:3]) if METHODS[method].uses_layer else maps


def explained(model: keras.Model, images, head: str = "main") -> tuple[keras.Model, np.ndarray]:
    """Returns the `logit_network` of a model, and its inputs for `(n, h, w, 3)` images."""
    model = normal_form(model)
    network = logit_network(model, head)
    images = check_images(images, model.inputs[0].shape[1:3])
    return network, np.asarray(trunk_inputs(model)(images), "float32")


_networks = weakref.WeakKeyDictionary()  # model in normal form -> head -> its logit network


def logit_network(model: keras.Model, head: str = "main") -> keras.Model:
    """Copies the part of a network from its trunk to the logits of one head.

    It takes preprocessed images and computes in float32 whatever the policy of the original, so
    that the parts of a map add up. It is copied once for a model and head, and is given the model's
    weights at each call, so that it follows training. Raises `UserError` if the model has no such
    head, or crops or pads the image.
    """
    model = normal_form(model)
    networks = _networks.setdefault(model, {})
    if head not in networks:
        networks[head] = _copy_to_logits(model, head)
        return networks[head]
    for layer in networks[head].layers:
        if layer.weights:
            for copied, weight in zip(
                layer.weights, model.get_layer(layer.name).weights, strict=True
            ):
                copied.assign(weight)
    return networks[head]


def _copy_to_logits(model: keras.Model, head: str) -> keras.Model:
    check_alignment(model)
    present = [name for name in HEADS if any(layer.name == name for layer in model.layers)]
    if head not in present:
        raise UserError(f"`head` must be one that the model has: {present}. Received: {head=}.")
    network = copy_trunk(model, model.get_layer(head).output)
    network.get_layer(head).activation = keras.activations.linear
    return network


def modules_seen(network: keras.Model) -> list[str]:
    """Returns the inception modules that a `logit_network` has, such as "3a", in order."""
    names = {layer.name for layer in network.layers}
    return [module for module in TABLE_1 if f"inception_{module}_output" in names]


def default_layer(network: keras.Model) -> str:
    """Returns the last module of a `logit_network` whose cells are small enough to point.

    That is the last with at least `LEAST_CELLS` cells across or, in smaller networks, with as many
    as the first; the last module of all if the network takes any size.
    """
    layers = [f"inception_{module}_output" for module in modules_seen(network)]
    cells = [network.get_layer(layer).output.shape[1] or 0 for layer in layers]
    least = min(LEAST_CELLS, cells[0])
    return [layer for layer, across in zip(layers, cells, strict=True) if across >= least][-1]


def check_layer(network: keras.Model, layer: str):
    """Raises `UserError` with the nearest names if the network has no such feature map."""
    layers = [one for one in network.layers if not isinstance(one, keras.layers.InputLayer)]
    maps = [one.name for one in layers if len(one.output.shape) == 4]
    if layer not in maps:
        outputs = [name for name in maps if name.endswith("_output")]
        raise UserError(
            f"`layer` must be a feature map that the head {network.layers[-1].name} sees, such as "
            f"{', '.join(nearest(layer, maps)) or outputs[-1]}. Received: {layer=}."
        )


def choose_classes(
    network: keras.Model,
    inputs: np.ndarray,
    class_index: ClassIndex,
    labels: Sequence[str] | None = None,
) -> list[int]:
    """Returns the index of the class to explain in each image, as `gradcam` takes it."""
    if class_index is None:
        return tf.argmax(network([inputs], training=False), axis=-1).numpy().tolist()
    count = network.output.shape[-1]
    classes = [class_index] * len(inputs) if np.ndim(class_index) == 0 else list(class_index)
    labels = labels or default_labels(count)
    classes = [find_class(one, labels) if isinstance(one, str) else one for one in classes]
    valid = all(isinstance(one, Integral) and 0 <= one < count for one in classes)
    if len(classes) != len(inputs) or not valid:
        raise UserError(
            f"`class_index` must be in [0, {count}), one for all images or one for each. "
            f"Received: {class_index=}."
        )
    return [int(index) for index in classes]


def stretch(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes maps `(n, h, w)` bilinearly, so that a cell's center stays where it is."""
    stretched = tf.image.resize(np.asarray(maps)[..., None], size, method="bilinear")
    return stretched.numpy()[..., 0]


# Without the middle one tf-keras-vis picks a layer of its own. The last two would make maps
# incomparable: they pin the corner cells to the corner pixels and stretch the values to [0, 1].
_PLAIN = {"seek_penultimate_conv_layer": False, "expand_cam": False, "normalize_cam": False}


def gradient_cam(network, classes, inputs, layer: str) -> np.ndarray:
    """Computes "gradcam" at the layer's resolution."""
    from tf_keras_vis.gradcam import Gradcam

    return _by_gradients(Gradcam, network, classes, inputs, layer)


def gradient_cam_plus_plus(network, classes, inputs, layer: str) -> np.ndarray:
    """Computes "gradcam++" at the layer's resolution."""
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus

    return _by_gradients(GradcamPlusPlus, network, classes, inputs, layer)


def layer_cam(network, classes, inputs, layer: str) -> np.ndarray:
    """Computes "layercam" at the layer's resolution."""
    from tf_keras_vis.layercam import Layercam

    return _by_gradients(Layercam, network, classes, inputs, layer)


def _by_gradients(kind: type, network, classes, inputs, layer: str) -> np.ndarray:
    from tf_keras_vis.utils.scores import CategoricalScore

    def score(logits):
        """Has the value 0: Grad-CAM++ takes its exponential, which scales the map alone."""
        value = CategoricalScore(classes)(logits)
        return value - tf.stop_gradient(value)

    return np.asarray(kind(network)(score, inputs, penultimate_layer=layer, **_PLAIN))


def score_cam(network, classes, inputs, layer: str) -> np.ndarray:
    """Computes "scorecam" one image at a time: tf-keras-vis holds three copies for each channel."""
    from tf_keras_vis.scorecam import Scorecam
    from tf_keras_vis.utils.scores import CategoricalScore

    channels = min(network.get_layer(layer).output.shape[-1], SCORECAM_CHANNELS)
    cam = Scorecam(network)
    maps = []
    for image, index in zip(inputs, classes, strict=True):
        score = CategoricalScore([index])
        with contextlib.redirect_stdout(io.StringIO()):  # Keras' progress bar
            maps += [*cam(score, image[None], penultimate_layer=layer, max_N=channels, **_PLAIN)]
    return np.stack(maps)


def saliency(network, classes, inputs, layer: str | None = None) -> np.ndarray:
    """Computes "saliency" at the size of the inputs."""
    return np.abs(_pixel_gradients(network, classes, inputs)).max(axis=-1)


def smoothgrad(network, classes, inputs, layer: str | None = None) -> np.ndarray:
    """Computes "smoothgrad" with noise of its own, so that two calls give the same map."""
    generator = np.random.default_rng(0)
    deviation = SMOOTHGRAD_NOISE * np.ptp(inputs, axis=(1, 2, 3), keepdims=True)
    total = np.zeros_like(inputs)
    for _ in range(SMOOTHGRAD_SAMPLES):
        noise = deviation * generator.standard_normal(inputs.shape, dtype="float32")
        total += _pixel_gradients(network, classes, inputs + noise)
    return np.abs(total / SMOOTHGRAD_SAMPLES).max(axis=-1)


def _pixel_gradients(network, classes, inputs) -> np.ndarray:
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.scores import CategoricalScore

    plain = {"keepdims": True, "gradient_modifier": None, "normalize_map": False}
    return np.asarray(Saliency(network)(CategoricalScore(classes), inputs, **plain))

"""Where in a picture the evidence for a class lies, by six methods of the literature."""

import contextlib
import difflib
import io
from collections.abc import Sequence
from numbers import Integral

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import AUX_TAPS, HEADS
from keras_googlenet.imagenet import check_images
from keras_googlenet.labels import default_labels, find_class
from keras_googlenet.normal_form import check_alignment, copy_trunk, normal_form, trunk_inputs

LAST_MODULE = {"main": "5b", **AUX_TAPS}  # the last module that each head sees

ClassIndex = int | str | Sequence[int | str] | None


def explained(model: keras.Model, images, head: str = "main"):
    """Prepares a network and images for an explanation.

    Args:
        model: A GoogLeNet, as `normal_form` takes it.
        images: `(n, h, w, 3)` RGB in [0, 255] at the model's size.
        head: "main", "aux1" or "aux2".

    Returns:
        `(network, inputs)`: the `logit_network`, and what it takes for the images.

    Raises:
        UserError: If the model is no GoogLeNet or has no such head, or the images are not as
            `check_images` wants them.
    """
    model = normal_form(model)
    network = logit_network(model, head)
    images = check_images(images, model.inputs[0].shape[1:3])
    return network, np.asarray(trunk_inputs(model)(images), "float32")


def logit_network(model: keras.Model, head: str = "main") -> keras.Model:
    """Copies the part of a network from its trunk to the logits of one head.

    The copy computes in float32 whatever the policy of the original, so that the parts of a map
    add up, and nothing that is done to it reaches the original.

    Args:
        model: A GoogLeNet, as `normal_form` takes it.
        head: "main", "aux1" or "aux2".

    Returns:
        A model `(n, h, w, channels) -> (n, classes)`, from preprocessed images.

    Raises:
        UserError: If `model` is no GoogLeNet or has no such head, or its preprocessing cuts a
            part out of the image.
    """
    model = normal_form(model)
    check_alignment(model)
    present = [name for name in HEADS if any(layer.name == name for layer in model.layers)]
    if head not in present:
        raise UserError(f"`head` must be one that the model has: {present}. Received: {head=}.")
    network = copy_trunk(model, model.get_layer(head).output)
    network.get_layer(head).activation = keras.activations.linear
    return network


def check_layer(network: keras.Model, layer: str):
    """Raises `UserError` with the nearest names if the network has no such feature map."""
    layers = [one for one in network.layers if not isinstance(one, keras.layers.InputLayer)]
    maps = [found.name for found in layers if len(found.output.shape) == 4]
    if layer not in maps:
        outputs = [name for name in maps if name.endswith("_output")]
        near = ", ".join(difflib.get_close_matches(layer, maps)) or outputs[-1]
        raise UserError(
            f"`layer` must be a feature map that the head {network.layers[-1].name} sees, such as "
            f"{near}. Received: {layer=}."
        )


def choose_classes(
    network: keras.Model,
    inputs: np.ndarray,
    class_index: ClassIndex,
    labels: Sequence[str] | None = None,
) -> list[int]:
    """Says which class to explain in each image.

    Args:
        network: Ends in logits.
        inputs: `(n, h, w, channels)`, preprocessed.
        class_index: A class by number, wnid or name; one for each image; or `None` for the best
            class of each.
        labels: Class names; those of `default_labels` when not given.

    Returns:
        `n` class numbers.

    Raises:
        ValueError: If there is no such class.
    """
    if class_index is None:
        return tf.argmax(network([inputs], training=False), axis=-1).numpy().tolist()
    classes = network.output.shape[-1]
    chosen = [class_index] * len(inputs) if np.ndim(class_index) == 0 else list(class_index)
    labels = labels or default_labels(classes)
    chosen = [find_class(one, labels) if isinstance(one, str) else one for one in chosen]
    numbers = all(isinstance(one, Integral) and 0 <= one < classes for one in chosen)
    if len(chosen) != len(inputs) or not numbers:
        raise UserError(
            f"`class_index` must be in [0, {classes}), one for all images or one for each. "
            f"Received: {class_index=}."
        )
    return [int(index) for index in chosen]


CAM_METHODS = ("gradcam", "gradcam++", "layercam", "scorecam")  # of a layer
METHODS = (*CAM_METHODS, "saliency", "smoothgrad")  # the last two are of the pixels
SCORECAM_CHANNELS = 256  # those that vary most: each costs a forward pass and a copy of the image
SMOOTHGRAD_SAMPLES = 25  # differs from the paper's 50: half the time, hardly another map
SMOOTHGRAD_NOISE = 0.15  # of the range of the pixels; Smilkov et al. 2017: 10% to 20%


def gradcam(
    model: keras.Model,
    images: np.ndarray,
    class_index: ClassIndex = None,
    layer: str = "inception_5b_output",
    method: str = "gradcam",
    *,
    head: str = "main",
    labels: Sequence[str] | None = None,
) -> np.ndarray:
    """Maps the evidence for a class over each image, through tf-keras-vis.

    With A_k the channels of `layer` and g_k the gradient of the class's logit with respect to
    them, the map is

    - "gradcam": relu(sum over k of mean(g_k) A_k) (Selvaraju et al. 2017);
    - "gradcam++": the same with the positive gradients weighed by their second and third powers
      (Chattopadhay et al. 2018), up to a positive factor;
    - "layercam": relu(sum over k of relu(g_k) A_k) (Jiang et al. 2021);
    - "scorecam": relu(sum over k of p_k A_k), where p_k is the class's probability when the image
      is seen through A_k alone, over the 256 channels that vary most (Wang et al. 2020). It
      differs from the paper in that p_k is not compared with that of a blank image;
    - "saliency": the greatest absolute gradient of the three colors of a pixel (Simonyan et al.
      2014);
    - "smoothgrad": the same of the mean gradient over 25 noisy copies (Smilkov et al. 2017).

    Args:
        model: A GoogLeNet, as `normal_form` takes it. It is left as it is.
        images: `(n, h, w, 3)` RGB in [0, 255] at the model's size, of any numeric dtype; the
            variant's preprocessing is applied inside, unless the model has its own.
        class_index: A class by number, wnid or name, or one for each image; the best class of
            each image if not given.
        layer: Name of the layer whose channels are weighed; "saliency" and "smoothgrad" use none.
        method: One of `METHODS`.
        head: Whose logit is explained: "main", "aux1" or "aux2".
        labels: Class names, for a class that is given by name.

    Returns:
        `(n, h, w)` float32 at input size, not normalized, at least 0.

    Raises:
        ValueError: If there is no such layer, class, method or head, `model` is no GoogLeNet, or
            `images` have another shape, are none, or hold NaN.
    """
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {list(METHODS)}. Received: {method=}.")
    network, inputs = explained(model, images, head)
    check_layer(network, layer)
    classes = choose_classes(network, inputs, class_index, labels)
    maps = map_logits(network, inputs, classes, layer, method)
    size = np.shape(images)[1:3]  # that of the inputs, unless the model resizes
    return maps if maps.shape[1:] == size else stretch(maps, size)


def map_logits(
    network: keras.Model, inputs: np.ndarray, classes: Sequence[int], layer: str, method: str
) -> np.ndarray:
    """Does what `gradcam` does for a network that ends in logits.

    Args:
        network: As `logit_network` gives it.
        inputs: `(n, h, w, 3)`, preprocessed.
        classes: `n` class numbers.
        layer: Name of the layer whose channels are weighed.
        method: One of `METHODS`.

    Returns:
        As `gradcam`.

    Raises:
        ValueError: As `gradcam`.
    """
    inputs = check_images(inputs, network.inputs[0].shape[1:3], pixels=False)
    if method == "saliency":
        return _saliency(network, classes, inputs)
    if method == "smoothgrad":
        return _smoothgrad(network, classes, inputs)
    if method == "scorecam":
        coarse = _score_cam(network, classes, inputs, layer)
    else:
        coarse = _gradient_cam(network, classes, inputs, layer, method)
    return stretch(coarse, inputs.shape[1:3])


def stretch(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes maps `(n, h, w)` bilinearly, so that a cell's center stays where it is."""
    stretched = tf.image.resize(np.asarray(maps)[..., None], size, method="bilinear")
    return stretched.numpy()[..., 0]


# The middle one of the three would else pick a layer of its own, and the last two make the maps
# incomparable: they pin the corner cells to the corner pixels and stretch the values to [0, 1].
_PLAIN = {"seek_penultimate_conv_layer": False, "expand_cam": False, "normalize_cam": False}


def _gradient_cam(network, classes, inputs, layer: str, method: str) -> np.ndarray:
    from tf_keras_vis.gradcam import Gradcam
    from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
    from tf_keras_vis.layercam import Layercam
    from tf_keras_vis.utils.scores import CategoricalScore

    def score(logits):
        """Has the value 0: Grad-CAM++ takes its exponential, which scales the map alone."""
        value = CategoricalScore(classes)(logits)
        return value - tf.stop_gradient(value)

    kinds = {"gradcam": Gradcam, "gradcam++": GradcamPlusPlus, "layercam": Layercam}
    cam = kinds[method](network)
    return np.asarray(cam(score, inputs, penultimate_layer=layer, **_PLAIN))


def _score_cam(network, classes, inputs, layer: str) -> np.ndarray:
    """One image at a time: tf-keras-vis holds three copies of it for each channel."""
    from tf_keras_vis.scorecam import Scorecam
    from tf_keras_vis.utils.scores import CategoricalScore

    channels = min(network.get_layer(layer).output.shape[-1], SCORECAM_CHANNELS)
    cam = Scorecam(network)
    maps = []
    for number, index in enumerate(classes):
        with contextlib.redirect_stdout(io.StringIO()):  # Keras' progress bar
            found = cam(
                CategoricalScore([index]),
                inputs[number : number + 1],
                penultimate_layer=layer,
                max_N=channels,
                **_PLAIN,
            )
        maps.append(np.asarray(found)[0])
    return np.stack(maps)


def _gradients(network, classes, inputs) -> np.ndarray:
    from tf_keras_vis.saliency import Saliency
    from tf_keras_vis.utils.scores import CategoricalScore

    score = CategoricalScore(classes)
    found = Saliency(network)(
        score, inputs, keepdims=True, gradient_modifier=None, normalize_map=False
    )
    return np.asarray(found)


def _saliency(network, classes, inputs) -> np.ndarray:
    return np.abs(_gradients(network, classes, inputs)).max(axis=-1)


def _smoothgrad(network, classes, inputs) -> np.ndarray:
    """Draws the noise itself, so that two calls give the same map."""
    generator = np.random.default_rng(0)
    deviation = SMOOTHGRAD_NOISE * np.ptp(inputs, axis=(1, 2, 3), keepdims=True)
    total = np.zeros_like(inputs)
    for _ in range(SMOOTHGRAD_SAMPLES):
        noise = deviation * generator.standard_normal(inputs.shape, dtype="float32")
        total += _gradients(network, classes, inputs + noise)
    return np.abs(total / SMOOTHGRAD_SAMPLES).max(axis=-1)

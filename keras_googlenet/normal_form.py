"""What counts as a GoogLeNet, and the one form that everything else works on.

People save a network with more around it than `GoogLeNet` builds: the preprocessing inside, the
trunk as one layer of a transfer-learning model, a head of another name, hidden layers before it.
`normal_form` tells by the layers what is there, and returns one functional model

    image -> its own preprocessing, if any -> trunk of a variant -> `pool5` -> ... -> `main`

without nested models, whose classifier `main` owns its softmax or sigmoid, with `aux1` and `aux2`
behind it if they are there. What it does not know it refuses.
"""

import functools
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_googlenet.errors import UserError
from keras_googlenet.flattening import Builder, Call, FlatNetwork, flatten, needed_for
from keras_googlenet.googlenet import MINIMUM_SIZE_WITH_AUX, PROBABILITIES, variant_of
from keras_googlenet.imagenet import preprocess_input
from keras_googlenet.parts import (
    ENTRIES,
    GEOMETRY,
    Head,
    Parts,
    activation_name,
    changes_values,
    does_nothing,
    take_apart,
)

_COLORS = np.float32(
    [[0, 0, 0], [64, 64, 64], [128, 128, 128], [255, 255, 255], [255, 128, 0], [0, 64, 192]]
)
_GREATEST_PIXEL = 300  # to reach more, preprocessing must be for pixels in [0, 1]
_SCALE_TOLERANCE = 0.02  # of the greatest value: a mean may be rounded, or measured


def normal_form(model: keras.Model) -> keras.Model:
    """Returns the form of a network that everything else works on.

    Taken are the trunk of one of `VARIANTS`, as `GoogLeNet` builds it, alone or with one
    classifier behind global pooling: layers of Keras in one line, of which the last `Dense` layer
    is the classifier. Before the trunk may stand Keras' preprocessing layers and operations of
    `keras.ops`; random augmentation, which does nothing at inference, is dropped. Functional and
    Sequential models may be nested. Outputs that `main` is computed from are left out.

    Args:
        model: A network. It is left as it is.

    Returns:
        `model` itself if it has the form. Otherwise a functional model of copied layers, with the
        names that `GoogLeNet` gives; the classifier is called `main` and computes in float32.
        Its input is `(n, height, width, channels)` float32; where `model` takes any size and
        resizes, it is the size that it resizes to.

    Raises:
        UserError: If the network is no GoogLeNet, has layers that none has, or is quantized; it
            says what was found.

    Example:
    >>> from keras_googlenet import GoogLeNet
    >>> trunk = GoogLeNet(include_top=False, pooling="avg", input_shape=(64, 64, 3))
    >>> head = keras.layers.Dense(5, "softmax", name="flowers")
    >>> model = keras.Sequential([keras.layers.Rescaling(1 / 127.5, offset=-1), trunk, head])
    >>> model.build((None, 64, 64, 3))
    >>> normal_form(model).layers[-1].name
    'main'
    """
    flat = flatten(model)
    parts = take_apart(flat)
    if _is_normal(model, flat, parts):
        return model
    return _rebuild(model, flat, parts)


def check_classifier(model: keras.Model):
    """Raises `UserError` if a network in normal form gives no probabilities."""
    head = next((layer for layer in model.layers if layer.name == "main"), None)
    found = "features" if head is None else activation_name(head.activation)
    if found not in PROBABILITIES:
        what = {"features": "features, without a classifier", "linear": "logits"}
        raise UserError(
            f"the model ends in {what.get(found, found)}, so it gives no probabilities; give a "
            "network with its classifier, which ends in softmax or sigmoid."
        )


def has_preprocessing(model: keras.Model) -> bool:
    """Says whether a network in normal form changes pixel values before its trunk."""
    before = _entry(model).input
    if before is model.inputs[0]:
        return False
    return any(changes_values(call) for call in flatten(model, [before]).calls)


def preprocessing_for(model: keras.Model, variant: str | None = None) -> Callable:
    """Returns the function that prepares images for a network.

    It looks at the network once, so that the function can be traced.

    Args:
        model: A GoogLeNet in normal form.
        variant: Whose preprocessing; that of the layers if not given.

    Returns:
        Function of `(n, height, width, 3)` RGB in [0, 255], an array or tensor. It returns what
        `preprocess_input` does for the variant; float32 as it is if the network itself changes
        pixel values before its trunk.
    """
    if has_preprocessing(model):
        return _as_float32
    return functools.partial(preprocess_input, variant=variant or variant_of(model))


def preprocess_for(model: keras.Model, x):
    """Prepares images for a network, whether it has its preprocessing inside or not.

    Args:
        model: A GoogLeNet in normal form.
        x: `(n, height, width, 3)` RGB in [0, 255], an array or tensor.

    Returns:
        What the function of `preprocessing_for` returns.
    """
    return preprocessing_for(model)(x)


def _as_float32(x):
    return x.astype("float32", copy=False) if isinstance(x, np.ndarray) else ops.cast(x, "float32")


def trunk_inputs(model: keras.Model, any_size: bool = False) -> Callable:
    """Returns the function from images to what the trunk is given.

    Args:
        model: A GoogLeNet in normal form.
        any_size: Whether images may have another size than the network takes; they keep it.

    Returns:
        Function from `(n, height, width, 3)` RGB in [0, 255] to a tensor, or an array.

    Raises:
        UserError: If the network's own preprocessing works at one size only, with `any_size`.
    """
    prepare, before = preprocessing_for(model), _entry(model).input
    if before is model.inputs[0]:
        return prepare
    flat = flatten(model, [before])
    shape = flat.image.tensor.shape
    image = keras.Input((None, None, shape[-1]) if any_size else shape[1:])
    builder = Builder(flat.image, image)
    try:
        for call in flat.calls:
            is_skipped = any_size and type(call.operation).__name__ in GEOMETRY
            builder.skip(call) if is_skipped else builder.copy(call)
    except ValueError as error:
        raise UserError(
            "the preprocessing inside the model works at one image size only; give a network that "
            "takes preprocessed images."
        ) from error
    network = keras.Model(image, builder.tensor(flat.outputs[0]))
    return lambda images: network(prepare(images), training=False)


def copy_trunk(model: keras.Model, output, any_size: bool = False) -> keras.Model:
    """Copies a network in normal form from what `trunk_inputs` returns on, with its weights.

    Args:
        model: The network. It is left as it is.
        output: A tensor of it, or computed from such.
        any_size: Whether the copy takes images of any height and width.

    Returns:
        The copy, which computes in float32 whatever the policy of the original.
    """
    flat = flatten(model, [output])
    names = [layer.name for layer in model.layers]
    (begin,) = next(call for call in flat.calls if call.name in ENTRIES).inputs
    shape = begin.tensor.shape[1:]
    image = keras.Input((None, None, shape[-1]) if any_size else shape, name="image")
    builder = Builder(begin, image, names)
    for call in needed_for(flat.outputs, flat.calls, begin):
        builder.copy(call, call.name, dtype="float32")
    return keras.Model([image], builder.tensor(flat.outputs[0]))


def check_alignment(model: keras.Model):
    """Raises `UserError` if the trunk of a network in normal form sees a part of the image only."""
    for call in flatten(model, [_entry(model).input]).calls:
        sizes = {value.tensor.shape[1:3] for value in (*call.inputs, *call.outputs)}
        if len(sizes) > 1 and type(call.operation).__name__ != "Resizing":
            raise UserError(
                f"the model cuts or pads the image by its layer {call.name}, so a map of its trunk "
                "does not lie on the image; give a network without it."
            )


def trunk_pixels(model: keras.Model) -> np.ndarray:
    """Returns what reaches the trunk for a few pixel values: the scale that its weights are for.

    Args:
        model: A GoogLeNet in normal form, for images of three channels.

    Returns:
        `(6, 3)` float32, for black, grays, white and two colors.
    """
    sides = [side or MINIMUM_SIZE_WITH_AUX for side in model.inputs[0].shape[1:3]]
    images = np.array(np.broadcast_to(_COLORS[:, None, None], (len(_COLORS), *sides, 3)))
    values = np.asarray(ops.cast(trunk_inputs(model)(images), "float32"))
    return values[:, values.shape[1] // 2, values.shape[2] // 2]


def check_pixels(model: keras.Model):
    """Raises `UserError` if a network's own preprocessing is for other pixels than [0, 255]."""
    greatest = float(np.abs(trunk_pixels(model)).max())
    if greatest > _GREATEST_PIXEL:
        raise UserError(
            "the preprocessing inside the model turns pixels in [0, 255] into values up to "
            f"{greatest:.0f}, so it is for pixels of another range; put Rescaling before it."
        )


def check_trunk_scale(model: keras.Model):
    """Raises `UserError` if the trunk is given other pixels than those of its variant.

    Training feeds a network what `preprocess_input` returns, so weights that have learned from
    other values would begin on a scale that they do not know.
    """
    variant, given = variant_of(model), trunk_pixels(model)
    wanted = preprocess_input(_COLORS, variant)
    apart = np.abs(given - wanted).max(axis=1)
    if apart.max() > _SCALE_TOLERANCE * np.abs(wanted).max():
        worst = apart.argmax()
        raise UserError(
            f"the preprocessing inside the model turns RGB {_shown(_COLORS[worst])} into "
            f"{_shown(given[worst])}, but training of variant {variant} feeds "
            f"{_shown(wanted[worst])}; give weights that were trained so."
        )


def _shown(color: np.ndarray) -> str:
    return ", ".join(f"{value:.4g}" for value in color)


def _entry(model: keras.Model) -> keras.Layer:
    """The first layer of the trunk."""
    by_name = {layer.name: layer for layer in model.layers}
    return next(by_name[name] for name in ENTRIES if name in by_name)


def _is_normal(model: keras.Model, flat: FlatNetwork, parts: Parts) -> bool:
    """Whether nothing has to be copied."""
    names = [_output_name(name, head, parts) for name, head in parts.heads.items()]
    return (
        not (flat.nests or isinstance(model, keras.Sequential))
        and flat.image.tensor.shape == _image_shape(flat, parts)
        and flat.image.tensor.dtype == "float32"
        and not any(_is_replaced(call) for call in flat.calls)
        and not any(does_nothing(call) for call in parts.preprocessing)
        and all(_is_normal_head(name, head) for name, head in parts.heads.items())
        and [value.call.name for value in flat.outputs] == names
        and (isinstance(model.output, list) or len(names) == 1)
        and not isinstance(model.output, dict)
    )


def _is_normal_head(name: str, head: Head) -> bool:
    """Whether the layers are called and made as those of `GoogLeNet` are."""
    pooled = name != "main" or not head.calls or head.calls[0].name == "pool5"
    if head.classifier is None:
        return pooled
    layer = head.classifier.operation
    return (
        pooled
        and layer.name == name
        and activation_name(layer.activation) == head.activation
        and layer.compute_dtype == "float32"
    )


def _output_name(name: str, head: Head, parts: Parts) -> str:
    """The layer that a head ends in."""
    if head.classifier is not None:
        return name
    return head.calls[-1].name if head.calls else parts.trunk[-1].name


def _is_replaced(call: Call) -> bool:
    """Whether a layer keeps constants in its weights, or has adapters beside them."""
    layer = call.operation
    adapted = isinstance(layer, keras.layers.Normalization) and layer.input_mean is None
    return adapted or getattr(layer, "lora_enabled", False)


def _image_shape(flat: FlatNetwork, parts: Parts) -> tuple:
    """Shape of the input; of any size, what the network resizes to."""
    shape = flat.image.tensor.shape
    if None in shape[1:3]:
        for call in parts.preprocessing:
            if type(call.operation).__name__ in GEOMETRY and hasattr(call.operation, "height"):
                return (shape[0], call.operation.height, call.operation.width, shape[3])
    return shape


def _rebuild(model: keras.Model, flat: FlatNetwork, parts: Parts) -> keras.Model:
    """Copies the parts into one functional model."""
    image = keras.Input(_image_shape(flat, parts)[1:], name="image")
    names = ["image", "pool5", *parts.heads, *(call.name for call in parts.trunk)]
    builder = Builder(flat.image, image, names)
    for call in parts.preprocessing:
        _copy_preprocessing(builder, call)
    for call in parts.trunk:
        builder.copy(call, call.name)
    outputs = [_copy_head(builder, name, head, parts) for name, head in parts.heads.items()]
    return keras.Model(image, outputs if len(outputs) > 1 else outputs[0], name=model.name)


def _copy_preprocessing(builder: Builder, call: Call):
    layer = call.operation
    if does_nothing(call):
        builder.skip(call)
    elif isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
        mean, variance = map(ops.convert_to_numpy, (layer.adapt_mean, layer.adapt_variance))
        config = layer.get_config() | {"mean": mean.tolist(), "variance": variance.tolist()}
        builder.call(keras.layers.Normalization.from_config(config), call)
    else:
        builder.copy(call)


def _copy_head(builder: Builder, name: str, head: Head, parts: Parts):
    """Copies what leads to an output, and returns its tensor."""
    calls = [call for call in head.calls if call is not head.classifier]
    pooled = name != "main"
    value = parts.trunk[-1].outputs[0]
    for call in calls:
        if does_nothing(call) and not isinstance(call.operation, keras.layers.Dropout):
            builder.skip(call)
        elif pooled or does_nothing(call):
            builder.copy(call)
        else:
            builder.copy(call, "pool5")
            pooled = True
        value = call.outputs[0]
    if head.classifier is not None:
        builder.copy(head.classifier, name, activation=head.activation, dtype="float32")
        value = head.classifier.outputs[0]
    return builder.tensor(value)

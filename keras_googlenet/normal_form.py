"""The one form of a GoogLeNet that the rest of the package works on.

Users save networks with more around them than `GoogLeNet` builds: preprocessing inside, the trunk
as one layer of a transfer-learning model, a head with another name, hidden layers before it.
`normal_form` recognizes the parts by their layers and returns one functional model

    image -> its own preprocessing, if any -> trunk of a variant -> `pool5` -> ... -> `main`

without nested models, whose classifier `main` has its softmax or sigmoid inside; its outputs are
`main` and, if there are any, `aux1` and `aux2`. Networks with other layers are refused.
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
_GREATEST_PIXEL = 300  # greater values come from preprocessing for pixels in [0, 1]
_SCALE_TOLERANCE = 0.02  # of the greatest value: a mean may be rounded, or measured


def normal_form(model: keras.Model) -> keras.Model:
    """Returns the form of a network that the rest of the package works on.

    Accepted is the trunk of one of `VARIANTS`, as `GoogLeNet` builds it, alone or with a chain of
    Keras layers after it: global pooling first, and a `Dense` layer, the classifier, last. Before
    it there may be Keras' preprocessing layers and operations of `keras.ops`; random augmentation,
    which does nothing at inference, is dropped. Functional and Sequential models may be nested.
    Outputs that `main` is computed from are left out.

    Args:
        model: A network. It is left as it is.

    Returns:
        `model` itself if it has the form. Otherwise a functional model of copied layers, named as
        `GoogLeNet` does, whose classifier computes in float32. Its input is float32, and of the
        size that `model` resizes to if it accepts any.

    Raises:
        UserError: If the network has layers that are not accepted, or is quantized.

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
    return model if _is_normal(model, flat, parts) else _rebuild(model, flat, parts)


def check_classifier(model: keras.Model):  # here and below, `model` is in normal form
    """Raises `UserError` if a network gives no probabilities."""
    head = next((layer for layer in model.layers if layer.name == "main"), None)
    end = "features" if head is None else activation_name(head.activation)
    if end not in PROBABILITIES:
        what = {"features": "features, without a classifier", "linear": "logits"}
        raise UserError(
            f"the model ends in {what.get(end, end)}, so it gives no probabilities; give a "
            "network with its classifier, which ends in softmax or sigmoid."
        )


def check_image_shape(model: keras.Model):
    """Raises `UserError` unless a network is for square color images of one size."""
    height, width, channels = model.inputs[0].shape[1:]
    if height is None or height != width or channels != 3:
        raise UserError(
            f"the model is for images of {height}x{width} with {channels} channels; give a network "
            "for color images of one fixed square size."
        )


def check_alignment(model: keras.Model):
    """Raises `UserError` unless the trunk is given the whole image, and nothing around it."""
    for call in flatten(model, [_entry(model).input]).calls:
        sizes = {value.tensor.shape[1:3] for value in (*call.inputs, *call.outputs)}
        if len(sizes) > 1 and type(call.operation).__name__ != "Resizing":
            raise UserError(
                f"the model cuts or pads the image by its layer {call.name}, so a map of its trunk "
                "does not cover the image; give a network without it."
            )


def check_pixels(model: keras.Model):
    """Raises `UserError` if a network's own preprocessing is for other pixels than [0, 255]."""
    greatest = float(np.abs(trunk_pixels(model)).max())
    if greatest > _GREATEST_PIXEL:
        raise UserError(
            "the preprocessing inside the model turns pixels in [0, 255] into values up to "
            f"{greatest:.0f}, so it is for pixels of another range; put Rescaling before it."
        )


def check_trunk_scale(model: keras.Model):
    """Raises `UserError` if the trunk is given other pixels than training of its variant feeds."""
    variant, given = variant_of(model), trunk_pixels(model)
    expected = preprocess_input(_COLORS, variant)
    difference = np.abs(given - expected).max(axis=1)
    if difference.max() > _SCALE_TOLERANCE * np.abs(expected).max():
        color, ours, theirs = (
            ", ".join(f"{value:.4g}" for value in pixels[difference.argmax()])
            for pixels in (_COLORS, given, expected)
        )
        raise UserError(
            f"the preprocessing inside the model turns RGB {color} into {ours}, but training of "
            f"variant {variant} feeds {theirs}; give weights that were trained with that."
        )


def has_preprocessing(model: keras.Model) -> bool:
    """Returns whether a network changes pixel values before its trunk."""
    return any(changes_values(call) for call in flatten(model, [_entry(model).input]).calls)


def preprocessing_for(model: keras.Model, variant: str | None = None) -> Callable:
    """Returns the function, of RGB in [0, 255], that prepares images for a network.

    It is `preprocess_input` of the variant; for a network with its own preprocessing, a cast.
    """
    if has_preprocessing(model):
        return _as_float32
    return functools.partial(preprocess_input, variant=variant or variant_of(model))


def preprocess_for(model: keras.Model, x):
    """Prepares images for a network, as `preprocessing_for` says."""
    return preprocessing_for(model)(x)


def _as_float32(x):
    return x.astype("float32", copy=False) if isinstance(x, np.ndarray) else ops.cast(x, "float32")


def trunk_inputs(model: keras.Model, any_size: bool = False) -> Callable:
    """Returns the function from `(n, height, width, 3)` RGB in [0, 255] to the input of the trunk.

    With `any_size`, images of other sizes keep theirs; `UserError` where preprocessing forbids it.
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
            "the preprocessing inside the model works at one image size only; give a network for "
            "preprocessed images."
        ) from error
    network = keras.Model(image, builder.tensor(flat.outputs[0]))
    return lambda images: network(prepare(images), training=False)


def trunk_pixels(model: keras.Model) -> np.ndarray:
    """Returns what reaches the trunk for black, grays, white and two colors: `(6, 3)` float32."""
    sides = [side or MINIMUM_SIZE_WITH_AUX for side in model.inputs[0].shape[1:3]]
    images = np.array(np.broadcast_to(_COLORS[:, None, None], (len(_COLORS), *sides, 3)))
    values = np.asarray(ops.cast(trunk_inputs(model)(images), "float32"))
    return values[:, values.shape[1] // 2, values.shape[2] // 2]


def copy_trunk(model: keras.Model, output, any_size: bool = False) -> keras.Model:
    """Copies a network from the input of its trunk to `output`, to compute in float32.

    `output` is a tensor of `model`, or computed from such; `any_size` makes height and width free.
    """
    flat = flatten(model, [output])
    names = [layer.name for layer in model.layers]
    (start,) = next(call for call in flat.calls if call.name in ENTRIES).inputs
    shape = start.tensor.shape[1:]
    image = keras.Input((None, None, shape[-1]) if any_size else shape, name="image")
    builder = Builder(start, image, names)
    for call in needed_for(flat.outputs, flat.calls, start):
        builder.copy(call, call.name, dtype="float32")
    return keras.Model([image], builder.tensor(flat.outputs[0]))


def _entry(model: keras.Model) -> keras.Layer:
    """The first layer of the trunk."""
    by_name = {layer.name: layer for layer in model.layers}
    return next(by_name[name] for name in ENTRIES if name in by_name)


def _is_normal(model: keras.Model, flat: FlatNetwork, parts: Parts) -> bool:
    """Whether nothing has to be copied."""
    names = [_last_layer(name, head, parts) for name, head in parts.heads.items()]
    return (
        not (flat.has_nested_models or isinstance(model, keras.Sequential))
        and flat.image.tensor.shape == _image_shape(flat, parts)
        and flat.image.tensor.dtype == "float32"
        and not any(map(_is_replaced, flat.calls))
        and not any(map(does_nothing, parts.preprocessing))
        and all(_is_normal_head(name, head) for name, head in parts.heads.items())
        and [value.call.name for value in flat.outputs] == names
        and (isinstance(model.output, list) or len(names) == 1)
        and not isinstance(model.output, dict)
    )


def _is_normal_head(name: str, head: Head) -> bool:
    has_pool = name != "main" or not head.calls or head.calls[0].name == "pool5"
    if head.classifier is None:
        return has_pool
    layer = head.classifier.operation
    return (
        has_pool
        and layer.name == name
        and activation_name(layer.activation) == head.activation
        and layer.compute_dtype == "float32"
    )


def _last_layer(name: str, head: Head, parts: Parts) -> str:
    return name if head.classifier else [*parts.trunk, *head.calls][-1].name


def _is_replaced(call: Call) -> bool:
    """Whether the copy of a layer has other variables."""
    return _is_adapted(call.operation) or getattr(call.operation, "lora_enabled", False)


def _is_adapted(layer) -> bool:
    """Whether a layer keeps constants in its weights."""
    return isinstance(layer, keras.layers.Normalization) and layer.input_mean is None


def _image_shape(flat: FlatNetwork, parts: Parts) -> tuple:
    """Shape of the input; of a network for any size, the one that it resizes to."""
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
    elif _is_adapted(layer):
        mean, variance = map(ops.convert_to_numpy, (layer.adapt_mean, layer.adapt_variance))
        config = layer.get_config() | {"mean": mean.tolist(), "variance": variance.tolist()}
        builder.call(keras.layers.Normalization.from_config(config), call)
    else:
        builder.copy(call)


def _copy_head(builder: Builder, name: str, head: Head, parts: Parts):
    """Copies the layers that lead to an output, and returns its tensor."""
    needs_pool, value = name == "main", parts.trunk[-1].outputs[0]
    for call in head.calls:
        if does_nothing(call):
            is_dropout = isinstance(call.operation, keras.layers.Dropout)
            builder.copy(call) if is_dropout else builder.skip(call)
        else:
            builder.copy(call, "pool5" if needs_pool else None)
            needs_pool = False
        value = call.outputs[0]
    if head.classifier is not None:
        builder.copy(head.classifier, name, activation=head.activation, dtype="float32")
        value = head.classifier.outputs[0]
    return builder.tensor(value)

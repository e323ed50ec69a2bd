"""GoogLeNet (Inception v1): Szegedy et al. 2014, "Going deeper with convolutions", arXiv 1409.4842.

The file reads like the paper: Table 1 as numbers, the published variants as what differs from
it, the inception module of Figure 2, the auxiliary classifier of section 5, and the network of
Figure 3 with one line a row of Table 1.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from numbers import Integral
from typing import NamedTuple

import keras
from keras import layers

from keras_googlenet.layers import BatchNormalization, LocalResponseNormalization


class Widths(NamedTuple):
    """Filters of one inception module: the columns of Table 1."""

    conv1x1: int
    reduce3x3: int
    conv3x3: int
    reduce5x5: int
    conv5x5: int
    pool_proj: int


TABLE_1 = {
    #             1x1  3x3r  3x3  5x5r  5x5  pool
    "3a": Widths(  64,   96, 128,   16,  32,   32),
    "3b": Widths( 128,  128, 192,   32,  96,   64),
    "4a": Widths( 192,   96, 208,   16,  48,   64),
    "4b": Widths( 160,  112, 224,   24,  64,   64),
    "4c": Widths( 128,  128, 256,   24,  64,   64),
    "4d": Widths( 112,  144, 288,   32,  64,   64),
    "4e": Widths( 256,  160, 320,   32, 128,  128),
    "5a": Widths( 256,  160, 320,   32, 128,  128),
    "5b": Widths( 384,  192, 384,   48, 128,  128),
}  # fmt: skip

# Google's released graph ("inception5h") differs from the printed table in two numbers.
GOOGLE_TABLE = TABLE_1 | {
    "4a": TABLE_1["4a"]._replace(conv3x3=204),
    "5a": TABLE_1["5a"]._replace(reduce5x5=48),
}

BRANCHES = ("1x1", "3x3", "5x5", "pool")  # order of the concatenation, Figure 2b
HEADS = {"main": 1.0, "aux1": 0.3, "aux2": 0.3}  # output order and loss weights, section 5
AUX_TAPS = {"aux1": "4a", "aux2": "4d"}  # section 5
IMAGE_SIZE = 224  # section 5
PROBABILITIES = ("softmax", "sigmoid")  # activations of a head that gives them
MINIMUM_SIZE = 32  # five halvings leave one pixel
MINIMUM_SIZE_WITH_AUX = 65  # the smallest whose 4a map still holds a 5x5 pool


@dataclass(frozen=True)
class Variant:
    """What a network of the family has that others do not.

    Attributes:
        widths: Filters of each inception module.
        stem: Filters of the 7x7 convolution and of the 1x1 and the 3x3 that follow it.
        aux_conv: Filters of the 1x1 convolution of an auxiliary classifier.
        aux_fc: Units of its fully connected layer.
        reductions: Whether 1x1 convolutions stand before 3x3, before 5x5 and after the pool.
        batch_norm: Whether batch normalization follows each convolution, in place of its bias
            and of the local response normalizations.
        gamma: Whether batch normalization has a scale.
        lrn: Arguments of `LocalResponseNormalization`; unused with `batch_norm`.
        kernel5x5: Side of the kernel in the branch that the paper calls 5x5.
        pool4: Window of the last max pooling.
        stem_padding: Zeros on each side of the image before the 7x7 convolution, or "same".
        adaptive_aux: Whether the auxiliary pool always gives 4x4, whatever the image size.
    """

    widths: dict[str, Widths] = field(default_factory=lambda: TABLE_1, hash=False)
    stem: tuple[int, int, int] = (64, 64, 192)  # Table 1
    aux_conv: int = 128  # section 5
    aux_fc: int = 1024  # section 5
    reductions: bool = True
    batch_norm: bool = False
    gamma: bool = True
    lrn: dict[str, float] = field(default_factory=dict, hash=False)
    kernel5x5: int = 5
    pool4: int = 3
    stem_padding: int | str = 3
    adaptive_aux: bool = False


_GOOGLE_LRN = {"depth_radius": 5, "bias": 2.0, "alpha": 1e-4, "beta": 0.5}

VARIANTS = {
    "paper": Variant(),
    "batchnorm": Variant(batch_norm=True),
    "naive": Variant(reductions=False),
    "torchvision": Variant(batch_norm=True, kernel5x5=3, pool4=2, adaptive_aux=True),
    "slim": Variant(batch_norm=True, gamma=False, kernel5x5=3, pool4=2, stem_padding="same"),
    "google": Variant(widths=GOOGLE_TABLE, lrn=_GOOGLE_LRN, stem_padding="same"),
}


def GoogLeNet(  # noqa: N802 - named like its siblings in keras.applications
    include_top: bool = True,
    weights: str | None = None,
    input_tensor=None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: str | None = "softmax",
    name: str = "googlenet",
    *,
    variant: str = "paper",
    aux_heads: bool = True,
    dropout: float = 0.4,
    aux_dropout: float = 0.5,
) -> keras.Model:
    """Builds GoogLeNet, with its two auxiliary classifiers by default.

    The network holds no preprocessing: feed it what `preprocess_input(x, variant)` returns.

    Args:
        include_top: Whether to end in the classifiers; without, in features.
        weights: `None` (random), "imagenet" (the variant's published weights, downloaded once), or
            the path of a `.keras` or `.weights.h5` file that was saved from a network of the same
            variant. Of a file, whatever fits is taken by layer name: heads that it lacks, or that
            have other classes or image sizes there, stay random, and a warning names them. With
            "imagenet", a head of other than the 1000 classes stays random, and so do auxiliary
            heads where the publisher has no trained ones or whose images are not of 209 to 256
            pixels.
        input_tensor: Optional Keras tensor `(n, height, width, channels)` to build on.
        input_shape: `(height, width, channels)`, `(224, 224, 3)` when not given. At least 65x65
            with auxiliary heads and 32x32 without; height and width may be `None` without.
        pooling: With `include_top=False` only: `None` for the last feature map
            `(n, height / 32, width / 32, channels)`, "avg" or "max" for `(n, channels)`.
        classes: Number of classes.
        classifier_activation: Activation of every head; `None` for logits.
        name: Name of the model.
        variant: One of `VARIANTS`: "paper", "batchnorm", "naive", "torchvision", "slim",
            "google".
        aux_heads: Whether the auxiliary classifiers are there. Has no effect without the top.
        dropout: Rate before the main classifier. 0.4: Table 1.
        aux_dropout: Rate inside the auxiliary ones. Differs from the paper: section 5 prints 0.7.

    Returns:
        A functional `keras.Model`. Its output is the list `[main, aux1, aux2]`, each
        `(n, classes)` float32, or one tensor with `aux_heads=False` or `include_top=False`.

    Raises:
        ValueError: If arguments contradict each other, the image is too small, or the file is
            missing, damaged, or of another variant or network.

    Source: arXiv 1409.4842, Table 1, Figures 2 and 3, section 5.

    Example:
    >>> model = GoogLeNet(classes=10, input_shape=(65, 65, 3))
    >>> [tuple(output.shape) for output in model.outputs]
    [(None, 10), (None, 10), (None, 10)]
    """
    spec = _spec(variant)
    aux_heads = aux_heads and include_top
    _check_top(include_top, pooling, classes, classifier_activation)
    classes = int(classes)  # Keras refuses NumPy's integers
    image = _image_input(input_tensor, input_shape, aux_heads)

    x, taps = trunk(image, spec)
    if include_top:
        outputs = [main_head(x, classes, classifier_activation, dropout)]
        if aux_heads:
            for head, tap in taps.items():
                outputs.append(
                    aux_head(tap, classes, classifier_activation, aux_dropout, head, spec)
                )
    else:
        outputs = [pool_features(x, pooling)]

    inputs = image if input_tensor is None else keras.utils.get_source_inputs(image)
    model = Functional(inputs, outputs if aux_heads else outputs[0], name=name)
    if weights is not None:
        _load_weights(model, weights, variant)
    return model


def trunk(image, spec: Variant):
    """Maps the image to the last feature map and to the maps that the auxiliary heads tap.

    Args:
        image: `(n, height, width, channels)`, preprocessed.
        spec: The variant.

    Returns:
        `(features, taps)`: `(n, height / 32, width / 32, channels)` and a map for each head.
    """
    taps = {}
    _, reduce3x3, conv3x3 = spec.stem

    def inception_row(x, module):
        x = inception(x, spec.widths[module], f"inception_{module}", spec)
        taps[module] = x
        return x

    # Shapes are those of a 224 x 224 image under Table 1.
    # fmt: off
    x = stem(image, spec)                                       # 112 x 112 x   64
    x = max_pool(x, 3, "pool1_3x3_s2")                          #  56 x  56 x   64
    x = local_response(x, "pool1_norm1", spec)
    x = convolution(x, reduce3x3, 1, "conv2_3x3_reduce", spec)  #  56 x  56 x   64
    x = convolution(x, conv3x3, 3, "conv2_3x3", spec)           #  56 x  56 x  192
    x = local_response(x, "conv2_norm2", spec)
    x = max_pool(x, 3, "pool2_3x3_s2")                          #  28 x  28 x  192
    x = inception_row(x, "3a")                                  #  28 x  28 x  256
    x = inception_row(x, "3b")                                  #  28 x  28 x  480
    x = max_pool(x, 3, "pool3_3x3_s2")                          #  14 x  14 x  480
    x = inception_row(x, "4a")                                  #  14 x  14 x  512
    x = inception_row(x, "4b")                                  #  14 x  14 x  512
    x = inception_row(x, "4c")                                  #  14 x  14 x  512
    x = inception_row(x, "4d")                                  #  14 x  14 x  528
    x = inception_row(x, "4e")                                  #  14 x  14 x  832
    x = max_pool(x, spec.pool4, "pool4_3x3_s2")                 #   7 x   7 x  832
    x = inception_row(x, "5a")                                  #   7 x   7 x  832
    x = inception_row(x, "5b")                                  #   7 x   7 x 1024
    # fmt: on
    return x, {head: taps[module] for head, module in AUX_TAPS.items()}


def inception(x, widths: Widths, name: str, spec: Variant):
    """One inception module: four branches on the same input, concatenated (Figure 2).

    Args:
        x: `(n, height, width, channels)`.
        widths: Filters of the branches.
        name: Prefix of the layer names.
        spec: The variant; without reductions it is the naive module of Figure 2a.

    Returns:
        `(n, height, width, channels of the four branches together)`.
    """
    conv1x1 = convolution(x, widths.conv1x1, 1, f"{name}_1x1", spec)

    conv3x3 = reduction(x, widths.reduce3x3, f"{name}_3x3_reduce", spec)
    conv3x3 = convolution(conv3x3, widths.conv3x3, 3, f"{name}_3x3", spec)

    conv5x5 = reduction(x, widths.reduce5x5, f"{name}_5x5_reduce", spec)
    conv5x5 = convolution(conv5x5, widths.conv5x5, spec.kernel5x5, f"{name}_5x5", spec)

    pool = max_pool(x, 3, f"{name}_pool", strides=1)
    pool = reduction(pool, widths.pool_proj, f"{name}_pool_proj", spec)

    return layers.Concatenate(name=f"{name}_output")([conv1x1, conv3x3, conv5x5, pool])


def reduction(x, filters: int, name: str, spec: Variant):
    """The 1x1 convolution that makes 3x3 and 5x5 affordable; absent from the naive module."""
    return convolution(x, filters, 1, name, spec) if spec.reductions else x


def stem(image, spec: Variant):
    """The 7x7 convolution. Caffe pads 3 on each side; "same" would pad 2 and 3 of 224."""
    padding = "same"
    if spec.stem_padding != "same":
        image = layers.ZeroPadding2D(spec.stem_padding, name="conv1_pad")(image)
        padding = "valid"
    return convolution(image, spec.stem[0], 7, "conv1_7x7_s2", spec, strides=2, padding=padding)


def convolution(x, filters, kernel, name, spec: Variant, strides=1, padding="same"):
    """Convolution, batch normalization where the variant has it, and ReLU: three named layers."""
    x = layers.Conv2D(
        filters,
        kernel,
        strides=strides,
        padding=padding,
        use_bias=not spec.batch_norm,
        name=name,
        **_initializers(spec, bias=CONV_BIAS),
    )(x)
    if spec.batch_norm:
        x = BatchNormalization(momentum=0.9, epsilon=1e-3, scale=spec.gamma, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def max_pool(x, window: int, name: str, strides: int = 2):
    """Max pooling with "same" padding, which on multiples of 32 is Caffe's ceiling mode."""
    return layers.MaxPooling2D(window, strides=strides, padding="same", name=name)(x)


def local_response(x, name: str, spec: Variant):
    """Local response normalization, which batch normalization replaces."""
    return x if spec.batch_norm else LocalResponseNormalization(**spec.lrn, name=name)(x)


def pool_features(x, pooling: str | None):
    """The end of a network without classifiers."""
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(name="pool5")(x)
    if pooling == "max":
        return layers.GlobalMaxPooling2D(name="pool5")(x)
    return x


def main_head(x, classes: int, activation: str | None, dropout: float):
    """Average pooling, dropout and one linear layer: Table 1, last rows."""
    x = pool_features(x, "avg")
    x = layers.Dropout(dropout, name="dropout")(x)
    return classifier(x, classes, activation, "main")


def aux_head(x, classes: int, activation: str | None, dropout: float, name: str, spec: Variant):
    """An auxiliary classifier, which feeds gradient to the middle of the network (section 5)."""
    if spec.adaptive_aux:
        x = layers.AdaptiveAveragePooling2D(4, name=f"{name}_pool")(x)
    else:
        x = layers.AveragePooling2D(5, strides=3, padding="valid", name=f"{name}_pool")(x)
    x = convolution(x, spec.aux_conv, 1, f"{name}_conv", spec)
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = layers.Dense(spec.aux_fc, name=f"{name}_fc", **_initializers(spec, bias=CONV_BIAS))(x)
    x = layers.ReLU(name=f"{name}_fc_relu")(x)
    x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
    return classifier(x, classes, activation, name)


def classifier(x, classes: int, activation: str | None, name: str):
    """The linear layer that owns its activation, in float32 under every dtype policy."""
    return layers.Dense(
        classes,
        activation=activation,
        kernel_initializer=KERNEL_INITIALIZER,
        dtype="float32",
        name=name,
    )(x)


KERNEL_INITIALIZER = "lecun_uniform"  # BVLC: Caffe's "xavier" is U(+-sqrt(3 / fan_in))
CONV_BIAS = 0.2  # BVLC: convolutions and auxiliary FC; the classifiers start at 0


def _initializers(spec: Variant, bias: float) -> dict:
    if spec.batch_norm:
        return {"kernel_initializer": "he_normal"}  # for ReLU: He et al. 2015
    return {
        "kernel_initializer": KERNEL_INITIALIZER,
        "bias_initializer": keras.initializers.Constant(bias),
    }


@keras.saving.register_keras_serializable(package="keras_googlenet")
class Functional(keras.Model):
    """A functional model that loads weights by the names of its layers.

    It is called like Keras' own class, because weight files address nested models by that name.
    """

    def load_weights(self, filepath, skip_mismatch: bool = False, **kwargs):
        """Loads what fits of a file, as `GoogLeNet(weights=filepath)` does.

        Args:
            filepath: A `.keras` or `.weights.h5` file of a GoogLeNet of the same variant, or what
                else `keras.Model.load_weights` takes, which is then left to Keras.
            skip_mismatch: Whether layers outside the heads may keep their weights, too.
            **kwargs: Those of `keras.Model.load_weights`.

        Raises:
            ValueError: If the file is missing, damaged, or of another variant or network.
        """
        if kwargs or re.search(r"://|(?<!\.weights)\.h5$|\.json$", str(filepath)):
            super().load_weights(filepath, skip_mismatch, **kwargs)
            return
        from keras_googlenet.weights.saved_weights import load_saved

        load_saved(self, filepath, skip_mismatch)


def inference_model(model: keras.Model) -> keras.Model:
    """Returns the main head alone, sharing layers and weights with `model`.

    Args:
        model: A GoogLeNet with three outputs or with one.

    Returns:
        A model `(n, height, width, channels) -> (n, classes)`; `model` itself if it has one
        output.

    Example:
    >>> model = GoogLeNet(classes=10, input_shape=(65, 65, 3))
    >>> tuple(inference_model(model).output.shape)
    (None, 10)
    """
    if len(model.outputs) == 1:
        return model
    return Functional(model.input, model.get_layer("main").output, name=model.name)


def variant_of(model: keras.Model) -> str:
    """Recognizes the variant from the layers, so that saving and cloning cannot lose it.

    Args:
        model: A GoogLeNet, with or without heads.

    Returns:
        A key of `VARIANTS`.

    Raises:
        ValueError: If the layers are those of no variant.

    Example:
    >>> variant_of(GoogLeNet(variant="google", include_top=False))
    'google'
    """
    variant = find_variant(model.layers)
    if variant is None:
        raise ValueError(
            f"`model` must be a GoogLeNet: its layers fit no variant of {list(VARIANTS)}. "
            f"Received: model={model.name!r} of {len(model.layers)} layers."
        )
    return variant


def find_variant(layers: Iterable[layers.Layer]) -> str | None:
    """Returns the key of `VARIANTS` whose traits show in layers, or `None`."""
    found = {layer.name: layer for layer in layers}
    return next((name for name, spec in VARIANTS.items() if _has_layers_of(found, spec)), None)


def _has_layers_of(found: dict[str, layers.Layer], spec: Variant) -> bool:
    """Whether every trait of `spec` that shows in layers is there."""
    if "inception_4a_3x3" not in found or "inception_4a_5x5" not in found:
        return False
    norm, bn = found.get("pool1_norm1"), found.get("conv1_7x7_s2_bn")
    traits = [
        ("inception_4a_3x3_reduce" in found) == spec.reductions,
        getattr(found["inception_4a_3x3"], "filters", None) == spec.widths["4a"].conv3x3,
        getattr(found["inception_4a_5x5"], "kernel_size", None) == (spec.kernel5x5,) * 2,
        ("conv1_pad" in found) == (spec.stem_padding != "same"),
        (bn is not None) == spec.batch_norm,
        (norm is not None) != spec.batch_norm,
        bn is None or getattr(bn, "scale", None) == spec.gamma,
    ]
    return all(traits)


def _spec(variant: str) -> Variant:
    if variant not in VARIANTS:
        raise ValueError(f"`variant` must be one of {list(VARIANTS)}. Received: {variant=}.")
    return VARIANTS[variant]


def _check_top(include_top, pooling, classes, classifier_activation):
    if include_top and pooling is not None:
        raise ValueError(
            "`pooling` is for `include_top=False`; the classifiers pool by themselves. "
            f"Received: {pooling=}."
        )
    if pooling not in (None, "avg", "max"):
        raise ValueError(f'`pooling` must be None, "avg" or "max". Received: {pooling=}.')
    if not isinstance(classes, Integral) or isinstance(classes, bool) or classes < 1:
        raise ValueError(f"`classes` must be a positive integer. Received: {classes=}.")
    if include_top and classes == 1 and classifier_activation == "softmax":
        raise ValueError(
            'softmax over one class is always 1: use `classifier_activation="sigmoid"` for a '
            f"yes-or-no classifier. Received: {classes=}, {classifier_activation=}."
        )


def _image_input(input_tensor, input_shape, aux_heads: bool):
    """Makes or checks the input tensor."""
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "GoogLeNet is built for `(n, height, width, channels)`: call "
            '`keras.config.set_image_data_format("channels_last")` first.'
        )
    if input_tensor is not None:
        if not keras.utils.is_keras_tensor(input_tensor):
            raise ValueError(
                f"`input_tensor` must be a Keras tensor. Received: {type(input_tensor).__name__}."
            )
        shape = tuple(input_tensor.shape[1:])
        if input_shape is not None and tuple(input_shape) != shape:
            raise ValueError(
                "`input_shape` must be that of `input_tensor`. Received: "
                f"input_shape={tuple(input_shape)}, input_tensor of {shape}."
            )
        _check_input_shape(shape, aux_heads)
        return input_tensor
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3) if input_shape is None else tuple(input_shape)
    _check_input_shape(shape, aux_heads)
    return keras.Input(shape, name="image")


def _check_input_shape(shape, aux_heads: bool):
    if len(shape) != 3 or shape[2] is None:
        raise ValueError(
            f"`input_shape` must be (height, width, channels). Received: input_shape={shape}."
        )
    minimum = MINIMUM_SIZE_WITH_AUX if aux_heads else MINIMUM_SIZE
    why = (
        "with `aux_heads=True`, because the auxiliary heads pool 5x5"
        if aux_heads
        else "because the network halves it five times"
    )
    if any(side is not None and side < minimum for side in shape[:2]):
        raise ValueError(
            f"`input_shape` must be at least {minimum}x{minimum} {why}. "
            f"Received: input_shape={shape}."
        )
    if aux_heads and None in shape:
        raise ValueError(
            "`input_shape` must be fixed with `aux_heads=True`, because the auxiliary heads are "
            f"fully connected. Received: input_shape={shape}."
        )


def _load_weights(model: keras.Model, weights: str, variant: str):
    """Loads the published weights, or a file of this project, into the network that was built."""
    if weights == "imagenet":
        from keras_googlenet.weights import load_published

        load_published(model, variant)
        return
    if not str(weights).endswith((".keras", ".weights.h5")):
        raise ValueError(
            '`weights` must be None, "imagenet", or the path of a `.keras` or `.weights.h5` file; '
            f"convert weights in other formats with convert.py first. Received: {weights=}."
        )
    from keras_googlenet.weights.saved_weights import load_saved

    load_saved(model, weights)

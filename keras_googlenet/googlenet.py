"""GoogLeNet (Inception v1): Szegedy et al. 2014, "Going deeper with convolutions", arXiv 1409.4842.

The file reads like the paper: Table 1 as numbers, the variants as their differences from it, the
network of Figure 3 with one line per row of Table 1, the inception module of Figure 2, and the
auxiliary classifier of section 5.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import keras
from keras import layers

from keras_googlenet.layers import BatchNormalization, LocalResponseNormalization
from keras_googlenet.model_arguments import check_top, image_input

__all__ = ["GoogLeNet", "inference_model", "variant_of", "HEADS", "TABLE_1", "VARIANTS"]
__all__ += ["Publisher", "Variant", "Widths"]


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

BRANCHES = ("1x1", "3x3", "5x5", "pool")  # order of the concatenation, Figure 2b
HEADS = {"main": 1.0, "aux1": 0.3, "aux2": 0.3}  # output order and loss weights, section 5
AUX_TAPS = {"aux1": "4a", "aux2": "4d"}  # section 5
IMAGE_SIZE = 224  # section 5
MINIMUM_SIZE = 32  # five halvings leave one pixel
MINIMUM_SIZE_WITH_AUX = 65  # the smallest whose 4a map still holds a 5x5 pool
PROBABILITIES = ("softmax", "sigmoid")  # activations of a head that returns probabilities
KERNEL_INITIALIZER = "lecun_uniform"  # BVLC: Caffe's "xavier" is U(+-sqrt(3 / fan_in))
CONV_BIAS = 0.2  # BVLC: convolutions and auxiliary FC; the classifiers start at 0
CAFFE_MEAN = (123.0, 117.0, 104.0)  # RGB; section 5: "mean subtraction"
DEFAULT_VARIANT = "paper"


class Publisher(NamedTuple):
    """The file that the published weights of a variant come from."""

    name: str  # of the publisher, with the data set
    url: str
    hash_kind: str  # an algorithm of `hashlib`
    hash: str  # its first digits, as far as they are published; empty if none are
    license: str
    aux_heads: bool  # whether its auxiliary heads are there and trained
    accuracy: tuple[float, float] | None = None  # top-1 and top-5 as published, one crop


@dataclass(frozen=True)
class Variant:
    """What differs between the networks of the family; the defaults are the paper's."""

    widths: dict[str, Widths] = field(default_factory=lambda: TABLE_1, hash=False)
    stem: tuple[int, int, int] = (64, 64, 192)  # filters of conv1, conv2 reduce, conv2: Table 1
    stem_padding: int | str = 3  # zeros on each side of the image, or "same"
    reductions: bool = True  # 1x1 convolutions before 3x3, before 5x5 and after the pool
    kernel5x5: int = 5  # kernel size of the branch that the paper calls 5x5
    pool4: int = 3  # window of the last max pooling
    aux_conv: int = 128  # filters of an auxiliary classifier's 1x1 convolution: section 5
    aux_fc: int = 1024  # units of its fully connected layer: section 5
    adaptive_aux: bool = False  # its average pool gives 4x4 for any image size
    batch_norm: bool = False  # after each convolution, in place of its bias and of LRN
    gamma: bool = True  # batch normalization has a scale
    lrn: dict[str, float] = field(default_factory=dict, hash=False)  # arguments of the LRN layers
    mean: float | tuple[float, float, float] = CAFFE_MEAN  # `preprocess_input` subtracts this
    scale: float = 1.0  # and then divides by this
    classes: int = 1000  # outputs of the published head
    publisher: Publisher | None = None


BVLC = Publisher(
    name="BVLC GoogLeNet, trained on ILSVRC 2012",
    url="http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
    hash_kind="sha1",
    hash="405fc5acd08a3bb12de8ee5e23a96bec22f08204",  # readme.md of the model in BVLC/caffe
    license="unrestricted use",
    aux_heads=True,
    accuracy=(0.687, 0.889),  # the same readme.md
)
TORCHVISION = Publisher(
    name="torchvision GoogLeNet, IMAGENET1K_V1",
    url="https://download.pytorch.org/models/googlenet-1378be20.pth",
    hash_kind="sha256",
    hash="1378be20",  # part of the file's name, which torch.hub checks
    license="BSD 3-Clause (torchvision); ported by its authors from TF-slim's, Apache 2.0",
    aux_heads=False,
    accuracy=(0.69778, 0.8953),  # GoogLeNet_Weights of torchvision.models
)
TF_SLIM = Publisher(
    name="TF-slim inception_v1, 2016-08-28, trained on ILSVRC 2012",
    url="http://download.tensorflow.org/models/inception_v1_2016_08_28.tar.gz",
    hash_kind="sha256",
    hash="",
    license="Apache 2.0",
    aux_heads=False,
    accuracy=(0.698, 0.896),  # README.md of TF-slim
)
INCEPTION_5H = Publisher(
    name="Google Inception 5h, trained on ImageNet",
    url="https://storage.googleapis.com/download.tensorflow.org/models/inception5h.zip",
    hash_kind="sha256",
    hash="d13569f6a98159de37e92e9c8ec4dae8f674fbf475f69fe6199b514f756d4364",  # TF's WORKSPACE
    license="Apache 2.0",
    aux_heads=True,
)
GOOGLE_TABLE = TABLE_1 | {  # of Inception 5h
    "4a": TABLE_1["4a"]._replace(conv3x3=204),
    "5a": TABLE_1["5a"]._replace(reduce5x5=48),
}
GOOGLE_LRN = {"depth_radius": 5, "bias": 2.0, "alpha": 1e-4, "beta": 0.5}

# fmt: off
VARIANTS = {
    "paper": Variant(publisher=BVLC),
    "batchnorm": Variant(batch_norm=True),
    "naive": Variant(reductions=False),
    "torchvision": Variant(
        batch_norm=True, kernel5x5=3, pool4=2, adaptive_aux=True,
        mean=127.5, scale=127.5, publisher=TORCHVISION,
    ),
    "slim": Variant(
        batch_norm=True, gamma=False, kernel5x5=3, pool4=2, stem_padding="same",
        mean=127.5, scale=127.5, classes=1001, publisher=TF_SLIM,
    ),
    "google": Variant(
        widths=GOOGLE_TABLE, lrn=GOOGLE_LRN, stem_padding="same",
        mean=117.0, classes=1008, publisher=INCEPTION_5H,
    ),
}
# fmt: on


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
    variant: str = DEFAULT_VARIANT,
    aux_heads: bool = True,
    dropout: float = 0.4,
    aux_dropout: float = 0.5,
) -> keras.Model:
    """Builds GoogLeNet, by default with its two auxiliary classifiers.

    The network contains no preprocessing: its input is `preprocess_input(x, variant)`.

    Args:
        include_top: Whether to add the classifiers; without them the outputs are features.
        weights: `None` (random), "imagenet" (the variant's published weights, downloaded once), or
            the path of a `.keras` or `.weights.h5` file saved from a network of the same variant.
            Layers of a file are matched by name. Heads that the file lacks, or has with other
            classes or for other image sizes, start from random weights, and a warning names them.
            With "imagenet", a head with other than the 1000 classes starts from random weights,
            and so do auxiliary heads if no trained ones are published or the images are not of 209
            to 256 pixels.
        input_tensor: Optional Keras tensor `(n, height, width, channels)` to build on.
        input_shape: `(height, width, channels)`, by default `(224, 224, 3)`. At least 65x65 with
            auxiliary heads; 32x32 without, where height and width may also be `None`.
        pooling: With `include_top=False` only: `None` for the last feature map
            `(n, height / 32, width / 32, channels)`, "avg" or "max" for `(n, channels)`.
        classes: Number of classes.
        classifier_activation: Activation of every head; `None` for logits.
        name: Name of the model.
        variant: A key of `VARIANTS`.
        aux_heads: Whether to add the auxiliary classifiers; unused with `include_top=False`.
        dropout: Rate before the main classifier. 0.4: Table 1.
        aux_dropout: Rate in the auxiliary classifiers. Differs from the paper: section 5 says 0.7.

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
    if variant not in VARIANTS:
        raise ValueError(f"`variant` must be one of {list(VARIANTS)}. Received: {variant=}.")
    spec = VARIANTS[variant]
    aux_heads = aux_heads and include_top
    check_top(include_top, pooling, classes, classifier_activation)
    classes = int(classes)  # Keras refuses NumPy's integers
    minimum = MINIMUM_SIZE_WITH_AUX if aux_heads else MINIMUM_SIZE
    image = image_input(input_tensor, input_shape, IMAGE_SIZE, minimum, aux_heads)

    x, taps = trunk(image, spec)
    if include_top:
        outputs = main_head(x, classes, classifier_activation, dropout)
    else:
        outputs = pool_features(x, pooling)
    if aux_heads:
        outputs = [outputs]
        for head, tap in taps.items():
            outputs.append(aux_head(tap, classes, classifier_activation, aux_dropout, head, spec))

    inputs = image if input_tensor is None else keras.utils.get_source_inputs(image)
    model = Functional(inputs, outputs, name=name)
    if weights is not None:
        _load_weights(model, weights, variant)
    return model


def trunk(image, spec: Variant):
    """Returns the last feature map and `{head: map}` with the inputs of the auxiliary heads."""
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
    """One inception module: four branches on the same input, concatenated (Figure 2b).

    Without reductions it is the naive module of Figure 2a.
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
    """The 1x1 convolution that makes 3x3 and 5x5 affordable."""
    return convolution(x, filters, 1, name, spec) if spec.reductions else x


def stem(image, spec: Variant):
    """The 7x7 convolution. Caffe pads 3 on each side; "same" pads 2 and 3 at 224 pixels."""
    padding = "same"
    if spec.stem_padding != "same":
        image = layers.ZeroPadding2D(spec.stem_padding, name="conv1_pad")(image)
        padding = "valid"
    return convolution(image, spec.stem[0], 7, "conv1_7x7_s2", spec, strides=2, padding=padding)


def convolution(x, filters, kernel, name, spec: Variant, strides=1, padding="same"):
    """Convolution, batch normalization if the variant has it, and ReLU."""
    x = layers.Conv2D(
        filters,
        kernel,
        strides=strides,
        padding=padding,
        use_bias=not spec.batch_norm,
        name=name,
        **_initializers(spec),
    )(x)
    if spec.batch_norm:
        x = BatchNormalization(momentum=0.9, epsilon=1e-3, scale=spec.gamma, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def max_pool(x, window: int, name: str, strides: int = 2):
    """Max pooling; for images of multiples of 32, "same" padding equals Caffe's ceiling mode."""
    return layers.MaxPooling2D(window, strides=strides, padding="same", name=name)(x)


def local_response(x, name: str, spec: Variant):
    """Local response normalization, unless batch normalization replaces it."""
    return x if spec.batch_norm else LocalResponseNormalization(**spec.lrn, name=name)(x)


def pool_features(x, pooling: str | None):
    """Global pooling: before the main classifier, or the output without classifiers."""
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(name="pool5")(x)
    if pooling == "max":
        return layers.GlobalMaxPooling2D(name="pool5")(x)
    return x


def main_head(x, classes: int, activation: str | None, dropout: float):
    """Average pooling, dropout and one linear layer: the last rows of Table 1."""
    x = pool_features(x, "avg")
    x = layers.Dropout(dropout, name="dropout")(x)
    return classifier(x, classes, activation, "main")


def aux_head(x, classes: int, activation: str | None, dropout: float, name: str, spec: Variant):
    """An auxiliary classifier, which brings gradient to the middle of the network (section 5)."""
    if spec.adaptive_aux:
        x = layers.AdaptiveAveragePooling2D(4, name=f"{name}_pool")(x)
    else:
        x = layers.AveragePooling2D(5, strides=3, padding="valid", name=f"{name}_pool")(x)
    x = convolution(x, spec.aux_conv, 1, f"{name}_conv", spec)
    x = layers.Flatten(name=f"{name}_flatten")(x)
    x = layers.Dense(spec.aux_fc, name=f"{name}_fc", **_initializers(spec))(x)
    x = layers.ReLU(name=f"{name}_fc_relu")(x)
    x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
    return classifier(x, classes, activation, name)


def classifier(x, classes: int, activation: str | None, name: str):
    """A linear layer with its activation, in float32 under every dtype policy."""
    return layers.Dense(
        classes,
        activation=activation,
        kernel_initializer=KERNEL_INITIALIZER,
        dtype="float32",
        name=name,
    )(x)


def _initializers(spec: Variant) -> dict:
    if spec.batch_norm:
        return {"kernel_initializer": "he_normal"}  # for ReLU: He et al. 2015
    return {
        "kernel_initializer": KERNEL_INITIALIZER,
        "bias_initializer": keras.initializers.Constant(CONV_BIAS),
    }


@keras.saving.register_keras_serializable(package="keras_googlenet")
class Functional(keras.Model):
    """A functional model that loads weights by layer name.

    Its name is that of Keras' own class, which weight files use for nested models.
    """

    def load_weights(self, filepath, skip_mismatch: bool = False, **kwargs):
        """Loads the weights that fit, as `GoogLeNet(weights=filepath)` does.

        Args:
            filepath: A `.keras` or `.weights.h5` file of a GoogLeNet of the same variant; anything
                else is passed to `keras.Model.load_weights`.
            skip_mismatch: Whether layers outside the heads may also keep their weights.
            **kwargs: Arguments of `keras.Model.load_weights`, to which the call is then passed.

        Raises:
            ValueError: If the file is missing, damaged, or of another variant or network.
        """
        if kwargs or re.search(r"://|(?<!\.weights)\.h5$|\.json$", str(filepath)):
            super().load_weights(filepath, skip_mismatch, **kwargs)
            return
        from keras_googlenet.weights.saved_weights import load_saved

        load_saved(self, filepath, skip_mismatch)


def inference_model(model: keras.Model) -> keras.Model:
    """Returns the network with only its main head, sharing layers and weights with `model`.

    Args:
        model: A GoogLeNet.

    Returns:
        A model `(n, height, width, channels) -> (n, classes)`; `model` itself if it has one output.

    Example:
    >>> model = GoogLeNet(classes=10, input_shape=(65, 65, 3))
    >>> tuple(inference_model(model).output.shape)
    (None, 10)
    """
    if len(model.outputs) == 1:
        return model
    return Functional(model.input, model.get_layer("main").output, name=model.name)


def variant_of(model: keras.Model) -> str:
    """Recognizes the variant from the layers, which saving and cloning keep.

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
            f"`model` must be a GoogLeNet, but its layers match none of {list(VARIANTS)}. "
            f"Received: model={model.name!r} of {len(model.layers)} layers."
        )
    return variant


def find_variant(layers: Iterable[layers.Layer]) -> str | None:
    """Returns the key of `VARIANTS` whose network has these layers, or `None`."""
    by_name = {layer.name: layer for layer in layers}
    return next((name for name, spec in VARIANTS.items() if _matches(by_name, spec)), None)


def _matches(layers: dict[str, layers.Layer], spec: Variant) -> bool:
    if "inception_4a_3x3" not in layers or "inception_4a_5x5" not in layers:
        return False
    norm = layers.get("conv1_7x7_s2_bn")
    return (
        ("inception_4a_3x3_reduce" in layers) == spec.reductions
        and getattr(layers["inception_4a_3x3"], "filters", None) == spec.widths["4a"].conv3x3
        and getattr(layers["inception_4a_5x5"], "kernel_size", None) == (spec.kernel5x5,) * 2
        and ("conv1_pad" in layers) == (spec.stem_padding != "same")
        and ("pool1_norm1" in layers) != spec.batch_norm
        and (norm is not None) == spec.batch_norm
        and (norm is None or getattr(norm, "scale", None) == spec.gamma)
    )


def _load_weights(model: keras.Model, weights: str, variant: str):
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

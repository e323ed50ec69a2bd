"""How an exported file compares with the network that it came from."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.exporting.serving_network import exported_network
from keras_googlenet.normal_form import preprocess_for

SAMPLE_PICTURES = 8
BATCH_SIZE = 8  # pictures that are compared at once
TOLERANCE = 1e-4  # greatest difference of a probability in float32
LEAST_HELD = 1 / 128  # a probability that eight bits, in steps of 1 / 256, can tell from none
LOW_PRECISION_TOLERANCE = 0.1  # where the network itself computes in 16 bits

Run = Callable[[np.ndarray], np.ndarray]  # images in [0, 255] -> probabilities


class SampleImages(NamedTuple):
    """Images to compare on.

    Attributes:
        images: `(n, size, size, 3)` float32 RGB in [0, 255].
        classes: `(n,)` numbers of their classes among the model's; `None` if nobody knows.
        origin: What they are, to follow "on".
    """

    images: np.ndarray
    classes: np.ndarray | None
    origin: str


class Agreement(NamedTuple):
    """How an exported file compares with the network that it came from.

    Attributes:
        largest: Greatest absolute difference of a probability.
        mean: Mean absolute difference of the probabilities.
        same_class: Share of pictures with the same best class.
        origin: What it was measured on.
        accuracies: Share of pictures whose best class is right, of the network and of the file;
            `None` if nobody knows the classes.
    """

    largest: float
    mean: float
    same_class: float
    origin: str
    accuracies: tuple[float, float] | None

    def __str__(self) -> str:
        text = (
            f"against the Keras model on {self.origin}: largest difference {self.largest:.1e}, "
            f"mean {self.mean:.1e}, same class {self.same_class:.1%}"
        )
        if self.accuracies:
            text += "; accuracy {:.1%} before and {:.1%} after".format(*self.accuracies)
        return text


def compare(
    model: keras.Model, run: Run, tolerance: float, pictures: SampleImages | None = None
) -> Agreement:
    """Compares an export with its network, and refuses one that differs.

    Args:
        model: Any GoogLeNet.
        run: The export.
        tolerance: Greatest difference of a probability that is let pass. A network that computes
            in 16 bits itself is granted `LOW_PRECISION_TOLERANCE`.
        pictures: What to compare on; `sample_images` when not given.

    Raises:
        UserError: If a probability differs by more than `tolerance`, or, on average, the sum of
            those that eight bits can hold does.
    """
    network = exported_network(model)
    if pictures is None:
        pictures = sample_images(network.inputs[0].shape[1])
    batches = np.split(pictures.images, range(BATCH_SIZE, len(pictures.images), BATCH_SIZE))
    expected = np.concatenate(
        [network.predict_on_batch(preprocess_for(network, batch)) for batch in batches]
    )
    actual = np.concatenate([run(batch) for batch in batches])
    agreement = _agreement(expected, actual, pictures)
    if network.get_layer("conv1_7x7_s2").compute_dtype != "float32":
        tolerance = max(tolerance, LOW_PRECISION_TOLERANCE)
    if not agreement.largest <= tolerance:  # catches NaN too
        raise UserError(
            f"the export differs from the Keras model by {agreement.largest:.1e} on "
            f"{pictures.origin}, more than {tolerance:.0e}; nothing was written."
        )
    held = expected >= LEAST_HELD
    sums = [float((scores * held).sum(axis=-1).mean()) for scores in (expected, actual)]
    if _is_softmax(expected) and abs(sums[1] - sums[0]) > tolerance:
        raise UserError(
            f"the export gives no probabilities, since they add up to {sums[1]:.2g} and not "
            f"{sums[0]:.2g} on {pictures.origin}; nothing was written."
        )
    return agreement


def _is_softmax(scores: np.ndarray) -> bool:
    return np.allclose(scores.sum(axis=-1), 1, atol=LOW_PRECISION_TOLERANCE)


def _agreement(expected: np.ndarray, actual: np.ndarray, pictures: SampleImages) -> Agreement:
    difference = np.abs(actual - expected)
    best = [scores.argmax(axis=-1) for scores in (expected, actual)]
    accuracies = None
    if pictures.classes is not None:
        accuracies = tuple(float(np.mean(found == pictures.classes)) for found in best)
    return Agreement(
        largest=float(difference.max()),
        mean=float(difference.mean()),
        same_class=float(np.mean(best[0] == best[1])),
        origin=pictures.origin,
        accuracies=accuracies,
    )


def sample_images(size: int) -> SampleImages:
    """Makes pictures that differ in color, coarseness and contrast, the same every time.

    Args:
        size: Side in pixels.

    Returns:
        `SAMPLE_PICTURES` of them, without classes.
    """
    generator = np.random.default_rng(0)
    images = []
    for cells in 2 ** np.arange(SAMPLE_PICTURES):
        coarse = generator.uniform(0, 255, (cells, cells, 3))
        index = np.arange(size) * cells // size
        images.append(coarse[index][:, index])
    origin = f"{SAMPLE_PICTURES} pictures made by code"
    return SampleImages(np.asarray(images, "float32"), None, origin)

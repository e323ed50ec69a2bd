"""How an exported file compares with the network that it was made from."""

from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.exporting.serving_network import exported_network
from keras_googlenet.normal_form import preprocess_for

GENERATED = 8  # images to compare on where none are given
BATCH_SIZE = 8
LEAST_HELD = 1 / 128  # probability that eight bits, in steps of 1 / 256, can tell from 0
LOW_PRECISION_TOLERANCE = 0.1  # where the network itself computes in 16 bits

Run = Callable[[np.ndarray], np.ndarray]  # images in [0, 255] -> probabilities


class SampleImages(NamedTuple):
    """Images to compare on.

    Attributes:
        images: `(n, size, size, 3)` float32 RGB in [0, 255].
        classes: `(n,)` indices of their classes among the model's; `None` if not known.
        origin: Description, to follow "on".
    """

    images: np.ndarray
    classes: np.ndarray | None
    origin: str


class Agreement(NamedTuple):
    """How an exported file compares with the network that it was made from.

    Attributes:
        largest: Greatest absolute difference of a probability.
        mean: Mean absolute difference of the probabilities.
        same_class: Share of images with the same best class.
        origin: Description of the images.
        accuracies: Top-1 accuracy of the network and of the file; `None` without classes.
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
    model: keras.Model, run: Run, tolerance: float, samples: SampleImages | None = None
) -> Agreement:
    """Compares an export with its network, and refuses one that differs.

    Args:
        model: Any GoogLeNet.
        run: The export.
        tolerance: Greatest difference of a probability that is accepted; at least
            `LOW_PRECISION_TOLERANCE` for a network that computes in 16 bits itself.
        samples: Images to compare on; `generated_images` if not given.

    Raises:
        UserError: If a probability differs by more than `tolerance`, or the sum of those that
            eight bits can hold does on average.
    """
    network = exported_network(model)
    if samples is None:
        samples = generated_images(network.inputs[0].shape[1])
    batches = batched(samples.images)
    expected = np.concatenate(
        [network.predict_on_batch(preprocess_for(network, batch)) for batch in batches]
    )
    actual = np.concatenate([run(batch) for batch in batches])
    agreement = _agreement(expected, actual, samples)
    if network.get_layer("conv1_7x7_s2").compute_dtype != "float32":
        tolerance = max(tolerance, LOW_PRECISION_TOLERANCE)
    if not agreement.largest <= tolerance:  # catches NaN too
        raise UserError(
            f"the export differs from the Keras model by {agreement.largest:.1e} on "
            f"{samples.origin}, more than {tolerance:.0e}; nothing was written."
        )
    _check_sums(expected, actual, tolerance, samples.origin)
    return agreement


def batched(images: np.ndarray) -> list[np.ndarray]:
    """Splits images into batches that fit into memory."""
    return np.split(images, range(BATCH_SIZE, len(images), BATCH_SIZE))


def _agreement(expected: np.ndarray, actual: np.ndarray, samples: SampleImages) -> Agreement:
    difference = np.abs(actual - expected)
    best = [scores.argmax(axis=-1) for scores in (expected, actual)]
    accuracies = None
    if samples.classes is not None:
        accuracies = tuple(float(np.mean(classes == samples.classes)) for classes in best)
    return Agreement(
        largest=float(difference.max()),
        mean=float(difference.mean()),
        same_class=float(np.mean(best[0] == best[1])),
        origin=samples.origin,
        accuracies=accuracies,
    )


def _check_sums(expected: np.ndarray, actual: np.ndarray, tolerance: float, origin: str):
    is_softmax = np.allclose(expected.sum(axis=-1), 1, atol=LOW_PRECISION_TOLERANCE)
    held = expected >= LEAST_HELD
    before, after = (float((x * held).sum(axis=-1).mean()) for x in (expected, actual))
    if is_softmax and abs(after - before) > tolerance:
        raise UserError(
            f"the export gives no probabilities: they add up to {after:.2g}, not {before:.2g}, on "
            f"{origin}; nothing was written."
        )


def generated_images(size: int) -> SampleImages:
    """Makes images of `size` pixels from coarse to fine noise, the same ones every time."""
    generator = np.random.default_rng(0)
    images = []
    for cells in 2 ** np.arange(GENERATED):
        coarse = generator.uniform(0, 255, (cells, cells, 3))
        index = np.arange(size) * cells // size
        images.append(coarse[index][:, index])
    return SampleImages(np.asarray(images, "float32"), None, f"{GENERATED} generated images")

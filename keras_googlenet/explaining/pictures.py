"""Explanations of one photograph as figures: by class, by method, by head and by branch."""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.data import preprocessing
from keras_googlenet.explaining import figures
from keras_googlenet.explaining.branches import branch_maps_of_modules
from keras_googlenet.explaining.figures import Panel
from keras_googlenet.explaining.maps import CAM_METHODS, METHODS, gradcam
from keras_googlenet.explaining.network import LAST_MODULE
from keras_googlenet.googlenet import HEADS
from keras_googlenet.imagenet import check_scores, split_label
from keras_googlenet.normal_form import preprocess_for

_WEIGHED, _GRADIENT = "activation, weighed", "logit a grey level"
_UNITS = {
    "gradcam": "evidence, logit a cell",
    "gradcam++": _WEIGHED,
    "layercam": "evidence, logit a cell",
    "scorecam": _WEIGHED,
    "saliency": _GRADIENT,
    "smoothgrad": _GRADIENT,
}  # of the colour bars


class Photograph(NamedTuple):
    """What a network sees of an image, and what it says.

    Attributes:
        file: Where it comes from.
        view: `(size, size, 3)` float32 RGB in [0, 255]: the network's input.
        square: `(s, s, 3)` uint8: the same part at the image's own resolution.
        scores: Head -> `(classes,)` probabilities, of the heads that the model has.
    """

    file: str
    view: np.ndarray
    square: np.ndarray
    scores: dict[str, np.ndarray]


class Subject(NamedTuple):
    """A network to be explained, in normal form, the names of its classes, and its input size."""

    model: keras.Model
    labels: Sequence[str]
    image_size: int

    def look_at(self, file: str, image: tf.Tensor) -> Photograph:
        """Shows the network an image, `(h, w, 3)` uint8; `UserError` if it answers with NaN."""
        view = preprocessing.evaluation_view(image, self.image_size).numpy()
        square = preprocessing.evaluation_square(image, self.image_size).numpy()
        outputs = self.model.predict_on_batch(preprocess_for(self.model, view[None]))
        outputs = outputs if isinstance(outputs, list) else [outputs]
        scores = {head: output[0] for head, output in zip(HEADS, outputs, strict=False)}
        for row in scores.values():
            check_scores(row, file)
        return Photograph(file, view, square, scores)

    def name(self, index: int) -> str:
        """Returns what a class is called, without its wnid."""
        return split_label(self.labels[index])[1]


def draw_classes(
    subject: Subject,
    photograph: Photograph,
    classes: Sequence[int],
    layer: str,
    method: str,
    head: str,
):
    """Draws one method's maps of several classes side by side, on one scale.

    Args:
        subject: The network.
        photograph: What it looks at.
        classes: Class numbers.
        layer: Name of the feature map.
        method: One of `METHODS`.
        head: Whose logits are explained.

    Returns:
        A matplotlib figure.
    """
    panels = [
        Panel(
            f"{subject.name(index)}  {photograph.scores[head][index]:.1%}",
            gradcam(subject.model, photograph.view[None], index, layer, method, head=head)[0],
        )
        for index in classes
    ]
    return figures.draw_panels(photograph.square, panels, _UNITS[method], shared=True)


def draw_methods(subject: Subject, photograph: Photograph, index: int, layer: str, head: str):
    """Draws the maps of all methods for one class, each on its own scale.

    Args:
        subject: The network.
        photograph: What it looks at.
        index: Class number.
        layer: Name of the feature map, for the methods that have one.
        head: Whose logit is explained.

    Returns:
        A matplotlib figure.
    """
    panels = [
        Panel(
            f"{method}, {layer}" if method in CAM_METHODS else f"{method}, pixels",
            gradcam(subject.model, photograph.view[None], index, layer, method, head=head)[0],
        )
        for method in METHODS
    ]
    return figures.draw_panels(photograph.square, panels, "", shared=False)


def draw_heads(subject: Subject, photograph: Photograph, index: int, method: str):
    """Draws the maps of one class for every head, each at the last module that the head sees.

    Args:
        subject: The network.
        photograph: What it looks at.
        index: Class number.
        method: One of `METHODS`.

    Returns:
        A matplotlib figure.
    """
    panels = []
    for head, scores in photograph.scores.items():
        module = LAST_MODULE[head]
        layer = f"inception_{module}_output"
        found = gradcam(subject.model, photograph.view[None], index, layer, method, head=head)
        title = f"{head} (after {module}): {subject.name(index)}  {scores[index]:.1%}"
        panels.append(Panel(title, found[0]))
    return figures.draw_panels(photograph.square, panels, _UNITS[method], shared=False)


def draw_branches(subject: Subject, photograph: Photograph, index: int, head: str):
    """Draws every branch's evidence for one class, in every module that the head sees.

    Args:
        subject: The network.
        photograph: What it looks at.
        index: Class number.
        head: Whose logit is explained.

    Returns:
        A matplotlib figure.
    """
    modules = branch_maps_of_modules(subject.model, photograph.view, None, index, head=head)
    share = photograph.scores[head][index]
    title = f"evidence for {subject.name(index)} ({head} head, {share:.1%}): red for, blue against"
    return figures.draw_branch_maps(photograph.square, modules, title)

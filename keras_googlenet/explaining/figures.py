"""Figures of maps: colors that color-blind eyes tell apart, each with its bar."""

import base64
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_googlenet.atomic import replacing
from keras_googlenet.data import preprocessing
from keras_googlenet.explaining.branches import BranchMaps, branch_maps_of_modules, shares
from keras_googlenet.explaining.cam import CAM_METHODS, LAST_MODULE, METHODS, gradcam
from keras_googlenet.googlenet import HEADS
from keras_googlenet.imagenet import check_scores
from keras_googlenet.labels import split_label
from keras_googlenet.normal_form import preprocess_for

_COLUMNS = 4  # panels a row
_INCHES = 3.0  # side of a panel
_TITLE = 26  # letters a line over a panel
_BRIGHTEST = 99.5  # percentile that has the last color: single pixels would else darken the rest
_FOR, _AGAINST = "#b2182b", "#2166ac"  # the ends of RdBu_r
_DPI = 110
_QUALITY = 88  # of the JPEG on a page; as PNG it would be five times as large


class Panel(NamedTuple):
    """A map, `(h, w)` at least 0, with its title."""

    title: str
    map: np.ndarray


def draw_panels(photograph: np.ndarray, panels: Sequence[Panel], unit: str, shared: bool):
    """Draws maps laid over a photograph, beside the photograph alone.

    Args:
        photograph: `(s, s, 3)` uint8 RGB: what the network saw, at any resolution.
        panels: The maps; each is stretched over the photograph.
        unit: What the color bars measure.
        shared: Whether the maps have one scale, so that they can be compared.

    Returns:
        A matplotlib figure.
    """
    from matplotlib.figure import Figure

    columns = min(len(panels) + 1, _COLUMNS)
    rows = -(-(len(panels) + 1) // columns)
    size = (columns * (_INCHES + 0.7), rows * (_INCHES + 0.8))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for cell in axes:
        cell.set_axis_off()
    extent = _extent(photograph)
    axes[0].imshow(photograph, extent=extent)
    axes[0].set_title("what the network saw")
    highest = [float(np.percentile(panel.map, _BRIGHTEST)) for panel in panels]
    for cell, panel, top in zip(axes[1:], panels, highest, strict=False):
        top = (max(highest) if shared else top) or 1.0
        cell.imshow(_gray(photograph), cmap="gray", extent=extent, vmin=0, vmax=255)
        drawn = cell.imshow(panel.map, "viridis", alpha=0.6, extent=extent, vmin=0, vmax=top)
        cell.set_title(textwrap.fill(panel.title, _TITLE))
        bar = figure.colorbar(drawn, ax=cell, shrink=0.8, extend="max", label=unit)
        bar.formatter.set_powerlimits((-2, 4))
    return figure


def draw_branch_maps(photograph: np.ndarray, modules: dict[str, BranchMaps], title: str):
    """Draws the evidence of every branch of every module, with the shares as bars.

    Args:
        photograph: `(s, s, 3)` uint8 RGB.
        modules: As `branch_maps_of_modules` gives them.
        title: What is explained.

    Returns:
        A matplotlib figure of a row a module and six columns.
    """
    from matplotlib.figure import Figure

    branches = list(next(iter(modules.values())))
    figure = Figure(figsize=(13.5, 1.85 * len(modules) + 0.9), layout="constrained")
    figure.suptitle(title)
    widths = [1.0] * (1 + len(branches)) + [1.5]
    grid = figure.subplots(len(modules), len(widths), squeeze=False, width_ratios=widths)
    for cell, name in zip(grid[0], ["all four", *branches, "share of the evidence"], strict=True):
        cell.set_title(name)
    for row, (module, maps) in zip(grid, modules.items(), strict=True):
        _draw_module(figure, row, photograph, maps)
        row[0].text(
            -0.12, 0.5, module, transform=row[0].transAxes, ha="right", va="center", size=14
        )
        _draw_shares(row[-1], maps)
    return figure


def _draw_module(figure, row, photograph: np.ndarray, maps: BranchMaps):
    """One scale a module: its branches add up to the first map."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    whole = sum(maps.values())
    top = max(float(np.abs(found).max()) for found in (whole, *maps.values())) or 1.0
    extent = _extent(photograph)
    scale = Normalize(-top, top)
    for cell, found in zip(row, (whole, *maps.values()), strict=False):
        cell.imshow(_gray(photograph), "gray", extent=extent, vmin=0, vmax=255, alpha=0.7)
        strength = 0.25 + 0.7 * np.abs(found) / top  # where there is nothing, the photograph shows
        cell.imshow(found, "RdBu_r", norm=scale, extent=extent, alpha=strength)
        cell.set_axis_off()
    bar = figure.colorbar(ScalarMappable(scale, "RdBu_r"), ax=list(row[:-1]), aspect=12, pad=0.01)
    bar.formatter.set_powerlimits((-2, 4))


def _draw_shares(cell, maps: BranchMaps):
    found = shares(maps)
    colors = [_FOR if value >= 0 else _AGAINST for value in found.values()]
    cell.barh(list(found), list(found.values()), color=colors)
    for place, value in enumerate(found.values()):
        side = (
            {"x": value + 0.03, "ha": "left"} if value >= 0 else {"x": value - 0.03, "ha": "right"}
        )
        cell.text(y=place, s=f"{value:+.0%}", va="center", size=9, **side)
    cell.axvline(0, color="gray", linewidth=0.8)
    total = sum(float(part.sum()) for part in maps.values())
    cell.set(xlim=(-1.35, 1.35), xticks=[], xlabel=f"sum {total:+.3g}")
    cell.invert_yaxis()
    cell.spines[:].set_visible(False)


def save(figure, path: str | Path):
    """Writes a figure as a picture, whole or not at all."""
    with replacing(path) as file:
        figure.savefig(file, dpi=_DPI)


def as_data(figure) -> str:
    """Returns a figure as a `data:` address that an HTML page can hold."""
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", dpi=_DPI, pil_kwargs={"quality": _QUALITY})
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _extent(photograph: np.ndarray) -> tuple[int, int, int, int]:
    return (0, photograph.shape[1], photograph.shape[0], 0)


def _gray(photograph: np.ndarray) -> np.ndarray:
    """Without its colors, so that those of the map are the only ones."""
    return photograph.mean(axis=-1)


_WEIGHED, _GRADIENT = "activation, weighed", "logit a gray level"
_UNITS = {
    "gradcam": "evidence, logit a cell",
    "gradcam++": _WEIGHED,
    "layercam": "evidence, logit a cell",
    "scorecam": _WEIGHED,
    "saliency": _GRADIENT,
    "smoothgrad": _GRADIENT,
}  # of the color bars


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
        view = preprocessing.evaluation_crop(image, self.image_size).numpy()
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
    return draw_panels(photograph.square, panels, _UNITS[method], shared=True)


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
    return draw_panels(photograph.square, panels, "", shared=False)


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
    return draw_panels(photograph.square, panels, _UNITS[method], shared=False)


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
    return draw_branch_maps(photograph.square, modules, title)

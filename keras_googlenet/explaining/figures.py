"""Figures of maps, in colors that color-blind people can tell apart, each with its color bar.

`loaded` is what `models.load` returns.
"""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from keras_googlenet.atomic import replacing
from keras_googlenet.data import preprocessing
from keras_googlenet.explaining.branches import BranchMaps, branch_maps_of_modules, shares
from keras_googlenet.explaining.cam import default_layer, gradcam, logit_network
from keras_googlenet.explaining.methods import METHODS
from keras_googlenet.figure_text import drawable, show_as_it_is
from keras_googlenet.googlenet import BRANCHES, HEADS
from keras_googlenet.imagenet import check_scores
from keras_googlenet.labels import split_label
from keras_googlenet.normal_form import preprocess_for

_COLUMNS = 4  # panels a row
_INCHES = 3.0  # side of a panel
_TITLE = 26  # letters a line over a panel
_BRIGHTEST = (
    99.5  # percentile that has the last color: single pixels would otherwise darken the rest
)
_FOR, _AGAINST = "#b2182b", "#2166ac"  # the ends of RdBu_r
_DPI = 110
_QUALITY = 88  # of the JPEG on a page; as PNG it would be five times as large


class ClassifiedImage(NamedTuple):
    """An image with the scores that a network gives it."""

    file: str
    crop: np.ndarray  # (size, size, 3) float32 RGB in [0, 255]: the network's input
    square: np.ndarray  # (s, s, 3) uint8: the same crop at the image's own resolution
    scores: dict[str, np.ndarray]  # head -> (classes,) probabilities


def classify(loaded, file: str, image: tf.Tensor) -> ClassifiedImage:
    """Crops an image, `(h, w, 3)` uint8, and runs the network; `UserError` if a score is NaN."""
    crop = preprocessing.evaluation_crop(image, loaded.image_size).numpy()
    square = preprocessing.evaluation_square(image, loaded.image_size).numpy()
    outputs = loaded.model.predict_on_batch(preprocess_for(loaded.model, crop[None]))
    outputs = outputs if isinstance(outputs, list) else [outputs]
    scores = {head: output[0] for head, output in zip(HEADS, outputs, strict=False)}
    for row in scores.values():
        check_scores(row, file)
    return ClassifiedImage(file, crop, square, scores)


def class_name(loaded, index: int) -> str:
    """Returns the name of a class without its wnid."""
    return split_label(loaded.labels[index])[1]


def draw_classes(
    loaded,
    image: ClassifiedImage,
    classes: Sequence[int],
    layer: str | None,
    method: str,
    head: str,
) -> Figure:
    """Draws the maps of several classes by one method, on one scale."""
    panels = []
    for index in classes:
        found = gradcam(loaded.model, image.crop[None], index, layer, method, head=head)[0]
        panels.append((_class_title(loaded, image, index, head, found), found))
    return draw_panels(image.square, panels, METHODS[method].unit, shared=True)


def draw_methods(
    loaded, image: ClassifiedImage, index: int, layer: str | None, head: str
) -> Figure:
    """Draws the maps of one class by all methods, each on its own scale."""
    layer = layer or default_layer(logit_network(loaded.model, head))
    panels = []
    for name, method in METHODS.items():
        found = gradcam(loaded.model, image.crop[None], index, layer, name, head=head)[0]
        title = f"{name}, {layer if method.uses_layer else 'pixels'}"
        if not found.any():
            title += f": no evidence for {_drawn_name(loaded, index)}"
        panels.append((title, found))
    return draw_panels(image.square, panels, "", shared=False)


def draw_heads(loaded, image: ClassifiedImage, index: int, method: str) -> Figure:
    """Draws the maps of one class for every head, each at the head's `default_layer`."""
    panels = []
    for head in image.scores:
        layer = default_layer(logit_network(loaded.model, head))
        found = gradcam(loaded.model, image.crop[None], index, layer, method, head=head)[0]
        module = layer.split("_")[1]
        title = f"{head} ({module}): {_class_title(loaded, image, index, head, found)}"
        panels.append((title, found))
    return draw_panels(image.square, panels, METHODS[method].unit, shared=False)


def draw_branches(loaded, image: ClassifiedImage, index: int, head: str) -> Figure:
    """Draws a row for each module that the head sees: evidence, branches and their shares."""
    modules = branch_maps_of_modules(loaded.model, image.crop, None, index, head=head)
    figure = Figure(figsize=(13.5, 1.85 * len(modules) + 0.9), layout="constrained")
    name, score = _drawn_name(loaded, index), image.scores[head][index]
    figure.suptitle(f"evidence for {name} ({head} head, {score:.1%}): red for, blue against")
    widths = [1.0] * (1 + len(BRANCHES)) + [1.5]
    grid = figure.subplots(len(modules), len(widths), squeeze=False, width_ratios=widths)
    for cell, title in zip(grid[0], ["all four", *BRANCHES, "share of the evidence"], strict=True):
        cell.set_title(title)
    for row, (module, maps) in zip(grid, modules.items(), strict=True):
        _draw_module(figure, row, image.square, maps)
        beside = {"transform": row[0].transAxes, "ha": "right", "va": "center"}
        row[0].text(-0.12, 0.5, module, size=14, **beside)
        _draw_shares(row[-1], maps)
    return figure


def _drawn_name(loaded, index: int) -> str:
    return drawable(class_name(loaded, index), index)


def _class_title(loaded, image: ClassifiedImage, index: int, head: str, found: np.ndarray) -> str:
    title = f"{_drawn_name(loaded, index)}  {image.scores[head][index]:.1%}"
    return title if found.any() else f"no evidence for {title}"


def draw_panels(
    square: np.ndarray, panels: Sequence[tuple[str, np.ndarray]], unit: str, shared: bool
) -> Figure:
    """Draws titled maps over an image, beside the image alone; `shared` gives them one scale."""
    columns = min(len(panels) + 1, _COLUMNS)
    rows = -(-(len(panels) + 1) // columns)
    size = (columns * (_INCHES + 0.7), rows * (_INCHES + 0.8))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for cell in axes:
        cell.set_axis_off()
    axes[0].imshow(square)
    axes[0].set_title("what the network saw")
    highest = [float(np.percentile(one, _BRIGHTEST)) for _, one in panels]
    for cell, (title, one), top in zip(axes[1:], panels, highest, strict=False):
        top = (max(highest) if shared else top) or 1.0
        extent = _draw_gray(cell, square)
        drawn = cell.imshow(one, "viridis", alpha=0.6, extent=extent, vmin=0, vmax=top)
        cell.set_title(textwrap.fill(title, _TITLE))
        bar = figure.colorbar(drawn, ax=cell, shrink=0.8, extend="max", label=unit)
        bar.formatter.set_powerlimits((-2, 4))
    return figure


def _draw_module(figure, row, square: np.ndarray, maps: BranchMaps):
    """Uses one scale for a module: its branches add up to the first map."""
    whole = sum(maps.values())
    top = max(float(np.abs(one).max()) for one in (whole, *maps.values())) or 1.0
    scale = Normalize(-top, top)
    for cell, one in zip(row, (whole, *maps.values()), strict=False):
        extent = _draw_gray(cell, square, alpha=0.7)
        strength = 0.25 + 0.7 * np.abs(one) / top  # where there is no evidence, the image shows
        cell.imshow(one, "RdBu_r", norm=scale, extent=extent, alpha=strength)
        cell.set_axis_off()
    bar = figure.colorbar(ScalarMappable(scale, "RdBu_r"), ax=list(row[:-1]), aspect=12, pad=0.01)
    bar.formatter.set_powerlimits((-2, 4))


def _draw_shares(cell, maps: BranchMaps):
    share_of = shares(maps)
    colors = [_FOR if share >= 0 else _AGAINST for share in share_of.values()]
    cell.barh(list(share_of), list(share_of.values()), color=colors)
    for y, share in enumerate(share_of.values()):
        x, side = (share + 0.03, "left") if share >= 0 else (share - 0.03, "right")
        cell.text(x, y, f"{share:+.0%}", va="center", ha=side, size=9)
    cell.axvline(0, color="gray", linewidth=0.8)
    total = sum(float(part.sum()) for part in maps.values())
    cell.set(xlim=(-1.35, 1.35), xticks=[], xlabel=f"sum {total:+.3g}")
    cell.invert_yaxis()
    cell.spines[:].set_visible(False)


def _draw_gray(cell, square: np.ndarray, alpha: float = 1.0) -> tuple[int, int, int, int]:
    """Draws an image without its colors, and returns the extent for a map over it."""
    extent = (0, square.shape[1], square.shape[0], 0)
    cell.imshow(square.mean(axis=-1), "gray", extent=extent, vmin=0, vmax=255, alpha=alpha)
    return extent


def save(figure: Figure, path: str | Path):
    """Writes a figure to a file, whole or not at all; its suffix decides the format."""
    show_as_it_is(figure)
    with replacing(path) as file:
        figure.savefig(file, dpi=_DPI)


def as_jpeg(figure: Figure) -> bytes:
    """Returns a figure as a JPEG for a page."""
    show_as_it_is(figure)
    file = io.BytesIO()
    figure.savefig(file, format="jpeg", dpi=_DPI, pil_kwargs={"quality": _QUALITY})
    return file.getvalue()

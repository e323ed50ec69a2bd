"""Figures of features: units with their dataset examples, and the weights between channels."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

_COLUMNS = 6
_INCHES = 1.7
_CROP = 96  # pixels of an example in the collage
_GAP = 2  # pixels between examples


def draw_units(
    names: Sequence[str], images: np.ndarray, crops: Sequence[Sequence[np.ndarray]] | None = None
) -> Figure:
    """Draws `(n, diversity, size, size, 3)` images of units, each beside its dataset examples."""
    tiles = [list(row.astype("uint8")) for row in images]
    if crops is not None:
        tiles = [[*row, collage(examples)] for row, examples in zip(tiles, crops, strict=True)]
    across = len(tiles[0])  # tiles of one unit
    units = min(max(1, _COLUMNS // across), len(tiles))  # in a row
    rows = -(-len(tiles) // units)
    size = (units * across * _INCHES, rows * (_INCHES + 0.3))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, units * across, squeeze=False)
    for cell in grid.ravel():
        cell.set_axis_off()
    for cells, name, row in zip(grid.reshape(-1, across), names, tiles, strict=False):
        cells[0].set_title(name, size=8, loc="left")
        for cell, tile in zip(cells, row, strict=True):
            cell.imshow(tile)
    return figure


def collage(crops: Sequence[np.ndarray]) -> np.ndarray:
    """Lays examples out three in a row, `(s, s, 3)` uint8; missing ones stay white."""
    step = _CROP + _GAP
    whole = np.full((3 * step - _GAP, 3 * step - _GAP, 3), 255, "uint8")
    for number, crop in enumerate(crops):
        row, column = divmod(number, 3)
        small = Image.fromarray(crop).resize((_CROP, _CROP), Image.BICUBIC)
        whole[row * step :, column * step :][:_CROP, :_CROP] = np.asarray(small)
    return whole


def draw_circuit(
    weights: np.ndarray,
    sources: Sequence[tuple[str, np.ndarray]],
    targets: Sequence[tuple[str, np.ndarray]],
) -> Figure:
    """Draws `expanded_weights` between the names and images of the channels that they connect."""
    rows, columns = len(sources) + 1, len(targets) + 1
    size = (columns * 2.1 + 1.2, rows * 2.2 + 0.3)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    edges = [*zip(grid[0, 1:], targets, strict=True), *zip(grid[1:, 0], sources, strict=True)]
    for cell, (name, image) in edges:
        cell.imshow(image.astype("uint8"))
        cell.set_title(name, size=8)
    top = float(np.abs(weights).max()) or 1.0
    for (row, column), cell in np.ndenumerate(grid[1:, 1:]):
        drawn = cell.imshow(weights[row, column], "RdBu_r", vmin=-top, vmax=top)
        cell.set_title(f"sum {weights[row, column].sum():+.3f}", size=8)
    for cell in grid.ravel():
        cell.set(xticks=[], yticks=[])
    grid[0, 0].set_axis_off()
    figure.colorbar(drawn, ax=grid[1:, 1:], label="expanded weight, ReLU ignored", shrink=0.8)
    return figure

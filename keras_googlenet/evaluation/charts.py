"""The charts of a report, as data that an HTML page can hold."""

import base64
import io
from collections.abc import Sequence

import numpy as np

_BLUE, _ORANGE = "#0072b2", "#e69f00"  # Okabe and Ito: told apart by colour-blind eyes
_ALL_NAMES = 40  # classes up to which a confusion matrix names them all
_INCHES_A_CLASS = 0.3


def reliability_diagram(rows: list[dict]) -> str:
    """Draws accuracy over confidence.

    Args:
        rows: As `metrics.calibration` gives them.

    Returns:
        A `data:` address of a picture.
    """
    figure, axes = _axes(5, 5)
    middles = [(row["least"] + row["greatest"]) / 2 for row in rows]
    widths = [row["greatest"] - row["least"] for row in rows]
    axes.bar(middles, [row["accuracy"] for row in rows], widths, color=_BLUE, edgecolor="white")
    axes.plot([0, 1], [0, 1], "--", color="grey", label="as sure as right")
    axes.plot(
        [row["confidence"] for row in rows],
        [row["accuracy"] for row in rows],
        "o",
        color=_ORANGE,
        label="mean of a bin",
    )
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")
    return _drawn(figure)


def confusion_matrix(counts: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> str:
    """Draws how often each class was taken for each.

    Args:
        counts: `(len(rows), len(columns))`.
        rows: Classes that the examples have.
        columns: Classes that were predicted.

    Returns:
        A `data:` address of a picture.
    """
    named = max(counts.shape) <= _ALL_NAMES
    rows_inches, columns_inches = (_INCHES_A_CLASS * n if named else 7 for n in counts.shape)
    figure, axes = _axes(max(columns_inches + 2.8, 4), max(rows_inches + 1.2, 3))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="class")
    if named:
        axes.set_xticks(range(len(columns)), columns, rotation=90)
        axes.set_yticks(range(len(rows)), rows)
        for (row, column), count in np.ndenumerate(counts):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, count, ha="center", va="center", color=colour, size=7)
    figure.colorbar(image, label="share of the class", shrink=0.8)
    return _drawn(figure)


def _axes(width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _drawn(figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

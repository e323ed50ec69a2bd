"""Figures of an evaluation for docs/results.md: its confusion matrix, and right and wrong examples.

    python evaluate.py runs/cifar10 --report report
    python -m docs.predictions report/predictions.csv docs/images/cifar10

writes `docs/images/cifar10_confusion.png` and `docs/images/cifar10_examples.png`. The images must
still be where they were evaluated.
"""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from keras_googlenet import cli
from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError

DPI = 110


def main():
    """Draws both figures."""
    parser = cli.parser(__doc__)
    parser.add_argument("predictions", type=cli.local_path, help="predictions.csv of the report")
    parser.add_argument("output", help="start of the names of both figures")
    flags = parser.parse_args()
    cli.start_tensorflow()
    from keras_googlenet.evaluation.report import draw_confusion_matrix

    with flags.predictions.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    for name, figure in (
        ("confusion", draw_confusion_matrix(counts_of(rows), *[classes_of(rows)] * 2)),
        ("examples", examples(rows)),
    ):
        file = Path(f"{flags.output}_{name}.png")
        with replacing(file) as temporary:
            figure.savefig(temporary, dpi=DPI, format="png")
        print(f"-> {file}")


def classes_of(rows: list[dict]) -> list[str]:
    """Returns labels and predicted classes in alphabetical order."""
    return sorted({row[column] for row in rows for column in ("label", "class_1")})


def counts_of(rows: list[dict]) -> np.ndarray:
    """Counts the images by label and predicted class, `(classes, classes)` int64."""
    classes = classes_of(rows)
    counts = np.zeros((len(classes),) * 2, int)
    for row in rows:
        counts[classes.index(row["label"]), classes.index(row["class_1"])] += 1
    return counts


def chosen(rows: list[dict]) -> dict[str, tuple[dict, dict]]:
    """Returns, for each class, its first right row and its most confident mistake."""
    by_class = defaultdict(list)
    for row in rows:
        by_class[row["label"]].append(row)
    pairs = {}
    for label, those in sorted(by_class.items()):
        right = [row for row in those if row["class_1"] == label]
        wrong = [row for row in those if row["class_1"] != label]
        if not right or not wrong:
            raise UserError(f"{label} has no right or no wrong image; evaluate more images.")
        pairs[label] = right[0], max(wrong, key=lambda row: float(row["score_1"]))
    return pairs


def examples(rows: list[dict]):
    """Draws a column for each class: a right example above its most confident mistake."""
    from matplotlib.figure import Figure
    from PIL import Image

    pairs = chosen(rows)
    figure = Figure(figsize=(1.1 * len(pairs), 3.4), layout="constrained")
    grid = figure.subplots(2, len(pairs), squeeze=False)
    for column, (label, pair) in enumerate(pairs.items()):
        for axes, row in zip(grid[:, column], pair, strict=True):
            with Image.open(row["file"]) as image:
                axes.imshow(image.convert("RGB"), interpolation="nearest")
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(f"{row['class_1']}\n{float(row['score_1']):.0%}", size=9)
        grid[0, column].set_title(label, size=10)
    grid[0, 0].set_ylabel("right", size=10)
    grid[1, 0].set_ylabel("wrong", size=10)
    return figure


if __name__ == "__main__":
    cli.run(main)

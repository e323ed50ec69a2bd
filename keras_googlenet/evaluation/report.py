"""The report of an evaluation: a page, `evaluation.json` and `predictions.csv`."""

import csv
import json
from pathlib import Path

import numpy as np

from keras_googlenet.atomic import replacing
from keras_googlenet.data.datasets import Split
from keras_googlenet.evaluation import metrics, page
from keras_googlenet.evaluation.plan import Plan
from keras_googlenet.evaluation.thumbnails import thumbnails
from keras_googlenet.imagenet import TOP, split_label

MISTAKES = 24  # pictures on the page


def write(folder: Path, plan: Plan, split: Split, records: np.ndarray, facts: dict) -> Path:
    """Writes the three files, each whole or not at all.

    Args:
        folder: Where to; made if it is missing. Nothing else in it is touched.
        plan: What was computed.
        split: What it was computed on.
        records: Of all examples.
        facts: `models`, `dataset` and `seconds`.

    Returns:
        The page, `evaluation.html`.
    """
    labels = plan.classes.labels
    result = facts | _figures(plan, records)
    mistakes = most_confident_mistakes(records)
    shown = [
        {
            "picture": picture,
            "name": split.name(number),
            "label": labels[records["label"][number]],
            "predicted": labels[records["top"][number, 0]],
            "score": float(records["scores"][number, 0]),
        }
        for number, picture in zip(mistakes, thumbnails(split, mistakes), strict=True)
    ]
    with replacing(folder / "evaluation.json") as file:
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    with replacing(folder / "predictions.csv") as file:
        _write_predictions(file, split, records, labels)
    with replacing(folder / "evaluation.html") as file:
        file.write_text(page.render(result, records, labels, shown), encoding="utf-8")
    return folder / "evaluation.html"


def most_confident_mistakes(records: np.ndarray, count: int = MISTAKES) -> list[int]:
    """Returns the numbers of the wrong examples with the highest scores, the highest first."""
    results = metrics.reported(records)
    wrong = np.flatnonzero(results["rank"] > 0)
    order = np.argsort(-results["confidence"][wrong], kind="stable")
    return wrong[order][:count].tolist()


def _figures(plan: Plan, records: np.ndarray) -> dict:
    """Returns all figures as JSON values."""
    labels = plan.classes.labels
    figures = {"heads": plan.heads, "crops": plan.crop_counts[-1], "sizes": plan.sides}
    figures |= metrics.head_metrics(records, plan.heads)
    for number, head in enumerate(plan.heads):
        results = metrics.reported(records, number)
        figures |= {
            f"{head}_calibration_error": metrics.calibration_error(results),
            f"{head}_calibration": metrics.calibration(results),
            f"{head}_classes": metrics.class_accuracies(records, labels, number),
            f"{head}_confusions": metrics.confusion_pairs(records, labels, number),
        }
    if plan.each_ensemble:
        figures["table"] = metrics.table(records, plan.crop_counts)
    return figures


def _write_predictions(path: Path, split: Split, records: np.ndarray, labels: list[str]):
    columns = [f"{kind}_{place}" for place in range(1, TOP + 1) for kind in ("class", "score")]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", *columns])
        for number, record in enumerate(records):
            row = [split.name(number), _short(labels[record["label"]])]
            for guess, score in zip(record["top"], record["scores"], strict=True):
                row += ["", ""] if guess < 0 else [_short(labels[guess]), f"{score:.6f}"]
            writer.writerow(row)


def _short(label: str) -> str:
    """Returns the wnid of an ImageNet class, other labels as they are."""
    return split_label(label)[0] or label

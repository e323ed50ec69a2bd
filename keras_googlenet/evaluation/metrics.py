"""Figures of a whole data set, from the records of its examples."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from keras_googlenet.imagenet import TOP

BINS = 15  # of the calibration error: Guo et al. 2017, section 3


def head_metrics(records: np.ndarray, heads: Sequence[str]) -> dict[str, float]:
    """Returns what evaluate.py prints.

    Args:
        records: Of at least one example.
        heads: Names of the heads in the order of the grid.

    Returns:
        `examples`, and for each head `<head>_accuracy`, `<head>_top5` and `<head>_loss`, the
        mean cross-entropy in nats.
    """
    metrics = {"examples": len(records)}
    for number, head in enumerate(heads):
        results = reported(records, number)
        metrics |= {
            f"{head}_accuracy": float(np.mean(results["rank"] == 0)),
            f"{head}_top5": float(np.mean(results["rank"] < TOP)),
            f"{head}_loss": float(np.mean(results["loss"])),
        }
    return metrics


def reported(records: np.ndarray, head: int = 0) -> np.ndarray:
    """Returns a head's results with all networks and the greatest protocol, `(n,)`."""
    return records["results"][:, -1, -1, head]


def calibration(results: np.ndarray) -> list[dict[str, float]]:
    """Compares how sure a network is with how often it is right, in bins of equal width.

    Args:
        results: `(n,)` results of one head.

    Returns:
        A row for each bin that is not empty: `least` and `greatest` confidence of the bin,
        `examples`, mean `confidence`, and `accuracy`.
    """
    confidence, right = results["confidence"], results["rank"] == 0
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        {
            "least": number / BINS,
            "greatest": (number + 1) / BINS,
            "examples": int(np.sum(bins == number)),
            "confidence": float(np.mean(confidence[bins == number])),
            "accuracy": float(np.mean(right[bins == number])),
        }
        for number in range(BINS)
        if np.any(bins == number)
    ]


def calibration_error(results: np.ndarray) -> float:
    """Returns the expected calibration error in [0, 1]: Guo et al. 2017, equation 3."""
    rows = calibration(results)
    gaps = [row["examples"] * abs(row["accuracy"] - row["confidence"]) for row in rows]
    return sum(gaps) / len(results)


def class_accuracies(records: np.ndarray, labels: Sequence[str], head: int = 0) -> list[dict]:
    """Returns `label`, `examples`, `accuracy` and `top5` of each class that occurs."""
    ranks = reported(records, head)["rank"]
    return [
        {
            "label": labels[number],
            "examples": int(np.sum(records["label"] == number)),
            "accuracy": float(np.mean(ranks[records["label"] == number] == 0)),
            "top5": float(np.mean(ranks[records["label"] == number] < TOP)),
        }
        for number in np.unique(records["label"])
    ]


def confusion_pairs(records: np.ndarray, labels: Sequence[str], head: int = 0) -> list[dict]:
    """Returns `label`, `predicted` and `count` of every mistake that was made, most often first."""
    predicted = reported(records, head)["predicted"]
    pairs = Counter(zip(records["label"].tolist(), predicted.tolist(), strict=True))
    return [
        {"label": labels[label], "predicted": labels[guess], "count": count}
        for (label, guess), count in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
        if label != guess
    ]


def table(records: np.ndarray, crops: Sequence[int]) -> list[dict]:
    """Returns the paper's Table 3 for the main head.

    Args:
        records: With a grid of ensembles and protocols.
        crops: Crops of each protocol.

    Returns:
        A row for each cell: `models`, `crops`, `cost` (forward passes an example), `top1_error`,
        `top5_error`, and `compared`, the change of the latter against the first cell.
    """
    rows = []
    for models in range(records.dtype["results"].shape[0]):
        for number, count in enumerate(crops):
            ranks = records["results"][:, models, number, 0]["rank"]
            rows.append(
                {
                    "models": models + 1,
                    "crops": count,
                    "cost": (models + 1) * count,
                    "top1_error": float(np.mean(ranks != 0)),
                    "top5_error": float(np.mean(ranks >= TOP)),
                }
            )
    return [row | {"compared": row["top5_error"] - rows[0]["top5_error"]} for row in rows]

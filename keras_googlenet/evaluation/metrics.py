"""Figures of a whole data set, from the records of its examples."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from keras_googlenet.labels import TOP

_SMALLEST = np.finfo("float32").tiny  # keeps the loss finite: 87.3 nats at most

_UNREADABLE = -1  # in place of a label

RESULT = np.dtype(
    [("loss", "f8"), ("confidence", "f8"), ("rank", "i4"), ("predicted", "i4")], align=True
)


def record_type(networks: int, protocols: int, heads: int) -> np.dtype:
    """Returns the type of a record whose grid has this shape."""
    return np.dtype(
        [
            ("label", "i4"),
            ("results", RESULT, (networks, protocols, heads)),
            ("top", "i4", TOP),
            ("scores", "f8", TOP),
        ]
    )


def blank_records(count: int, kind: np.dtype) -> np.ndarray:
    """Returns what stands for images that cannot be read, which `is_readable` tells."""
    records = np.zeros(count, kind)
    records["label"] = _UNREADABLE
    return records


def is_readable(records: np.ndarray) -> np.ndarray:
    """Says of each record whether its image could be read, `(n,)` booleans."""
    return records["label"] != _UNREADABLE


def make_records(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Reduces the probabilities of examples to records.

    Args:
        labels: `(n,)` class numbers.
        scores: `(networks, protocols, heads, n, classes)` probabilities.

    Returns:
        `(n,)` of `record_type`: for each cell of the grid the cross-entropy in nats, the greatest
        probability, the label's rank from 0 (of equal ones, the first class ranks first) and the
        class of rank 0; the five best classes of the last network row, last protocol and main
        head, -1 where there are fewer.
    """
    records = np.zeros(len(labels), record_type(*scores.shape[:3]))
    records["label"] = labels
    results = records["results"]
    for name, values in _results(labels, scores).items():
        results[name] = np.moveaxis(values, -1, 0)
    main = scores[-1, -1, 0]
    order = np.argsort(-main, axis=1, kind="stable")[:, :TOP]
    records["top"] = -1
    records["top"][:, : order.shape[1]] = order
    records["scores"][:, : order.shape[1]] = np.take_along_axis(main, order, axis=1)
    return records


def _results(labels: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    own = np.take_along_axis(scores, labels.reshape(1, 1, 1, -1, 1), axis=-1)
    earlier = np.arange(scores.shape[-1]) < labels[:, None]
    return {
        "loss": -np.log(np.maximum(own[..., 0], _SMALLEST)),
        "confidence": scores.max(axis=-1),
        "rank": ((scores > own) | ((scores == own) & earlier)).sum(axis=-1),
        "predicted": scores.argmax(axis=-1),
    }


def of_ensembles(scores: np.ndarray) -> np.ndarray:
    """Turns the probabilities of each network into those of the first, of the first two, ….

    Args:
        scores: `(networks, ...)`.

    Returns:
        The same shape; row k is the mean of rows 0 to k.
    """
    counts = np.arange(1, len(scores) + 1).reshape(-1, *[1] * (scores.ndim - 1))
    return np.cumsum(scores, axis=0) / counts


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

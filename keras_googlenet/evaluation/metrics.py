"""A record of each example, and the metrics of all records: accuracy, calibration, confusions."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from keras_googlenet.labels import TOP

BINS = 15  # of the calibration error: Guo et al. 2017, section 3
_SMALLEST = np.finfo("float32").tiny  # keeps the loss finite: 87.3 nats at most
_CORRUPT = -1  # label of a corrupt image

RESULT = np.dtype(
    [("loss", "f8"), ("confidence", "f8"), ("rank", "i4"), ("predicted", "i4")], align=True
)


def record_type(ensembles: int, crop_sets: int, heads: int) -> np.dtype:
    """Returns the type of a record with that many results."""
    return np.dtype(
        [
            ("label", "i4"),
            ("results", RESULT, (ensembles, crop_sets, heads)),
            ("top", "i4", TOP),
            ("scores", "f8", TOP),
        ]
    )


def corrupt_records(count: int, dtype: np.dtype) -> np.ndarray:
    """Returns records of corrupt images."""
    records = np.zeros(count, dtype)
    records["label"] = _CORRUPT
    return records


def is_corrupt(records: np.ndarray) -> np.ndarray:
    """Returns `(n,)` booleans: which records are of corrupt images."""
    return records["label"] == _CORRUPT


def make_records(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Reduces the probabilities of examples to records.

    Args:
        labels: `(n,)` class indices.
        scores: `(ensembles, crop sets, heads, n, classes)` probabilities.

    Returns:
        `(n,)` of `record_type`: for each ensemble, crop set and head the cross-entropy in nats, the
        greatest probability, the label's rank from 0 (of equal ones, the first class ranks first)
        and the class of rank 0; the five best classes of the last ensemble, last crop set and main
        head, -1 where there are fewer.
    """
    records = np.zeros(len(labels), record_type(*scores.shape[:3]))
    own = np.take_along_axis(scores, labels.reshape(1, 1, 1, -1, 1), axis=-1)
    earlier = np.arange(scores.shape[-1]) < labels[:, None]
    results = {
        "loss": -np.log(np.maximum(own[..., 0], _SMALLEST)),
        "confidence": scores.max(axis=-1),
        "rank": ((scores > own) | ((scores == own) & earlier)).sum(axis=-1),
        "predicted": scores.argmax(axis=-1),
    }
    for name, values in results.items():
        records["results"][name] = np.moveaxis(values, -1, 0)
    main = scores[-1, -1, 0]
    order = np.argsort(-main, axis=1, kind="stable")[:, :TOP]
    records["label"], records["top"] = labels, -1
    records["top"][:, : order.shape[1]] = order
    records["scores"][:, : order.shape[1]] = np.take_along_axis(main, order, axis=1)
    return records


def cumulative_means(scores: np.ndarray) -> np.ndarray:
    """Averages the first network, the first two, …: row k is the mean of rows 0 to k."""
    counts = np.arange(1, len(scores) + 1).reshape(-1, *[1] * (scores.ndim - 1))
    return np.cumsum(scores, axis=0) / counts


def final_results(records: np.ndarray, head: int = 0) -> np.ndarray:
    """Returns a head's results for all networks together and the most crops, `(n,)`."""
    return records["results"][:, -1, -1, head]


def head_metrics(records: np.ndarray, heads: Sequence[str]) -> dict[str, float]:
    """Returns what evaluate.py prints.

    Args:
        records: Of at least one example.
        heads: Names of the heads, in the order of the records.

    Returns:
        `examples`, and for each head `<head>_accuracy`, `<head>_top5` and `<head>_loss`, the
        mean cross-entropy in nats.
    """
    metrics = {"examples": len(records)}
    for index, head in enumerate(heads):
        results = final_results(records, index)
        metrics |= {
            f"{head}_accuracy": float(np.mean(results["rank"] == 0)),
            f"{head}_top5": float(np.mean(results["rank"] < TOP)),
            f"{head}_loss": float(np.mean(results["loss"])),
        }
    return metrics


def calibration(results: np.ndarray) -> list[dict[str, float]]:
    """Compares confidence with accuracy, in bins of equal width.

    Args:
        results: `(n,)` results of one head.

    Returns:
        A row for each bin that is not empty: `least` and `greatest` confidence of the bin,
        `examples`, mean `confidence`, and `accuracy`.
    """
    confidence, correct = results["confidence"], results["rank"] == 0
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    return [
        {
            "least": index / BINS,
            "greatest": (index + 1) / BINS,
            "examples": int(np.sum(bins == index)),
            "confidence": float(np.mean(confidence[bins == index])),
            "accuracy": float(np.mean(correct[bins == index])),
        }
        for index in np.unique(bins).tolist()
    ]


def calibration_error(results: np.ndarray) -> float:
    """Returns the expected calibration error in [0, 1]: Guo et al. 2017, equation 3."""
    rows = calibration(results)
    gaps = [row["examples"] * abs(row["accuracy"] - row["confidence"]) for row in rows]
    return sum(gaps) / len(results)


def class_accuracies(records: np.ndarray, labels: Sequence[str], head: int = 0) -> list[dict]:
    """Returns `label`, `examples`, `accuracy` and `top5` of each class that occurs."""
    rows = []
    for index in np.unique(records["label"]):
        ranks = final_results(records, head)["rank"][records["label"] == index]
        rows.append(
            {
                "label": labels[index],
                "examples": len(ranks),
                "accuracy": float(np.mean(ranks == 0)),
                "top5": float(np.mean(ranks < TOP)),
            }
        )
    return rows


def confusion_pairs(records: np.ndarray, labels: Sequence[str], head: int = 0) -> list[dict]:
    """Returns `label`, `predicted` and `count` of each kind of mistake, the most frequent first."""
    predicted = final_results(records, head)["predicted"]
    pairs = Counter(zip(records["label"].tolist(), predicted.tolist(), strict=True))
    return [
        {"label": labels[label], "predicted": labels[guess], "count": count}
        for (label, guess), count in sorted(pairs.items(), key=lambda pair: (-pair[1], pair[0]))
        if label != guess
    ]


def table(records: np.ndarray, crops: Sequence[int]) -> list[dict]:
    """Returns the paper's Table 3 for the main head.

    Args:
        records: With results of the first network, the first two, ….
        crops: Crops of each crop set.

    Returns:
        A row for each ensemble and crop set: `models`, `crops`, `cost` (forward passes an example),
        `top1_error`, `top5_error`, and `compared`, the difference in top-5 error from the first
        row.
    """
    rows = []
    for models in range(records.dtype["results"].shape[0]):
        for index, count in enumerate(crops):
            ranks = records["results"][:, models, index, 0]["rank"]
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

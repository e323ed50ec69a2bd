"""What is kept of each example: enough for every figure, whatever the number of classes.

Records are rows of a NumPy structured array. Each holds a grid of results, one for each number of
networks, protocol and head; the last row, column and so on of the grid is what is reported.
"""

import numpy as np

from keras_googlenet.imagenet import TOP

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

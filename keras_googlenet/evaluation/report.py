"""The report of an evaluation: `evaluation.html`, `evaluation.json` and `predictions.csv`."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_googlenet import html
from keras_googlenet.atomic import replacing
from keras_googlenet.data import preprocessing
from keras_googlenet.data.datasets import Split
from keras_googlenet.evaluation import metrics
from keras_googlenet.evaluation.ensemble import Ensemble
from keras_googlenet.figure_text import drawable, show_as_it_is
from keras_googlenet.labels import TOP, split_label

MISTAKES = 24  # images on the page
_PAIRS = 20  # confusions on the page; evaluation.json has them all
_MATRIX_NAMES = 40  # classes up to which the confusion matrix names them
_INCHES_A_CLASS = 0.3
_THUMBNAIL = 160  # pixels of the shorter side
_JPEG_QUALITY = 85
_BLUE, _ORANGE = "#0072b2", "#e69f00"  # Okabe and Ito: distinct for color-blind readers


def write(folder: Path, ensemble: Ensemble, split: Split, records: np.ndarray, facts: dict) -> Path:
    """Writes the three files, each completely or not at all.

    Args:
        folder: Created if it does not exist. Other files in it are not touched.
        ensemble: What was measured.
        split: What it was measured on.
        records: Of all examples of the split.
        facts: `models`, `dataset` and `seconds`.

    Returns:
        The page, `evaluation.html`.
    """
    labels = ensemble.classes.labels
    result = facts | _all_metrics(ensemble, records)
    with replacing(folder / "evaluation.json") as file:
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    with replacing(folder / "predictions.csv") as file:
        _write_predictions(file, split, records, labels)
    with replacing(folder / "evaluation.html") as file:
        file.write_text(_render(result, split, records, labels), encoding="utf-8")
    return folder / "evaluation.html"


def _all_metrics(ensemble: Ensemble, records: np.ndarray) -> dict:
    labels, heads = ensemble.classes.labels, ensemble.heads
    result = {"heads": heads, "crops": ensemble.crop_counts[-1], "sizes": ensemble.sides}
    result |= metrics.head_metrics(records, heads)
    for index, head in enumerate(heads):
        results = metrics.final_results(records, index)
        result |= {
            f"{head}_calibration_error": metrics.calibration_error(results),
            f"{head}_calibration": metrics.calibration(results),
            f"{head}_classes": metrics.class_accuracies(records, labels, index),
            f"{head}_confusions": metrics.confusion_pairs(records, labels, index),
        }
    if ensemble.cumulative:
        result["table"] = metrics.table(records, ensemble.crop_counts)
    return result


def _write_predictions(path: Path, split: Split, records: np.ndarray, labels: list[str]):
    """Writes one row per image; ImageNet classes by wnid, others by label."""
    short = [split_label(label)[0] or label for label in labels]
    columns = [f"{kind}_{rank}" for rank in range(1, TOP + 1) for kind in ("class", "score")]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", *columns])
        for index, record in enumerate(records):
            row = [split.name(index), short[record["label"]]]
            for predicted, score in zip(record["top"], record["scores"], strict=True):
                row += ["", ""] if predicted < 0 else [short[predicted], f"{score:.6f}"]
            writer.writerow(row)


def _render(result: dict, split: Split, records: np.ndarray, labels: list[str]) -> str:
    names = [split_label(label)[1] for label in labels]
    sections = [
        ("Summary", _summary(result)),
        ("Errors by models and crops", _table_3(result.get("table", []))),
        ("Accuracy by class", _class_table(result["main_classes"])),
        ("Most frequent confusions", _confusion_table(result["main_confusions"])),
        ("Confusion matrix", _confusion_matrix(records, names)),
        ("Calibration", _calibration(result)),
        ("Most confident mistakes", _mistakes(split, records, names)),
    ]
    body = "\n".join(f"<h2>{heading}</h2>\n{text}" for heading, text in sections if text)
    return html.page(f"Evaluation: {', '.join(result['models'])} on {result['dataset']}", body)


def _summary(result: dict) -> str:
    count = len(result["models"])
    models = "one model" if count == 1 else f"the average of {count} models"
    crops = "one crop" if result["crops"] == 1 else f"{result['crops']} crops"
    sentence = f"{result['examples']} images, {crops} each, {models}; {result['seconds']:.0f} s."
    rows = [
        [
            head,
            f"{result[f'{head}_accuracy']:.2%}",
            f"{result[f'{head}_top5']:.2%}",
            f"{result[f'{head}_loss']:.4f}",
            f"{result[f'{head}_calibration_error']:.4f}",
        ]
        for head in result["heads"]
    ]
    columns = ["head", "top-1", "top-5", "loss", "calibration error"]
    return f"<p>{sentence}</p>\n{html.table(columns, rows)}"


def _table_3(rows: list[dict]) -> str:
    cells = [
        [row["models"], row["crops"], row["cost"], f"{row['top1_error']:.2%}"]
        + [f"{row['top5_error']:.2%}", f"{row['compared']:+.2%}"]
        for row in rows
    ]
    columns = ["models", "crops", "cost", "top-1 error", "top-5 error", "top-5 against first row"]
    return html.table(columns, cells) if rows else ""


def _class_table(classes: list[dict]) -> str:
    rows = [
        [split_label(row["label"])[1], html.Bar(row["accuracy"]), f"{row['accuracy']:.1%}"]
        + [f"{row['top5']:.1%}", row["examples"]]
        for row in sorted(classes, key=lambda row: (row["accuracy"], row["top5"]))
    ]
    table = html.table(["class", "", "top-1", "top-5", "images"], rows)
    return f'<div class="scroll">{table}</div>'


def _confusion_table(pairs: list[dict]) -> str:
    rows = [
        [split_label(pair["label"])[1], split_label(pair["predicted"])[1], pair["count"]]
        for pair in pairs[:_PAIRS]
    ]
    return html.table(["class", "predicted", "images"], rows) if rows else "<p>No mistakes.</p>"


def _confusion_matrix(records: np.ndarray, names: list[str]) -> str:
    """Counts the classes of the data set; all other predictions share a column."""
    predicted = metrics.final_results(records)["predicted"]
    occurring = np.unique(records["label"])
    in_data_set = np.isin(predicted, occurring)
    columns = np.where(in_data_set, np.searchsorted(occurring, predicted), len(occurring))
    counts = np.zeros((len(occurring), len(occurring) + 1), int)
    np.add.at(counts, (np.searchsorted(occurring, records["label"]), columns), 1)
    shown = [drawable(names[index], int(index)) for index in occurring]
    columns = [*shown, "any other"]
    if in_data_set.all():
        counts, columns = counts[:, :-1], shown
    figure = draw_confusion_matrix(counts, shown, columns)
    pairs = zip(shown, (names[index] for index in occurring), strict=True)
    replaced = [f"{text} is {name}" for text, name in pairs if text != name]
    caption = f"\n<p>{escape('; '.join(replaced))}.</p>" if replaced else ""
    return _chart(figure, "confusion matrix") + caption


def draw_confusion_matrix(counts: np.ndarray, rows: Sequence[str], columns: Sequence[str]):
    """Draws counts, `(rows, columns)` integers, colored by their share of the row's class."""
    named = max(counts.shape) <= _MATRIX_NAMES
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
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, count, ha="center", va="center", color=color, size=7)
    figure.colorbar(image, label="share of the class", shrink=0.8)
    return figure


def _calibration(result: dict) -> str:
    """Draws a reliability diagram: accuracy over confidence."""
    figure, axes = _axes(5, 5)
    rows = result["main_calibration"]
    accuracy = [row["accuracy"] for row in rows]
    middles = [(row["least"] + row["greatest"]) / 2 for row in rows]
    widths = [row["greatest"] - row["least"] for row in rows]
    axes.bar(middles, accuracy, widths, color=_BLUE, edgecolor="white")
    axes.plot([0, 1], [0, 1], "--", color="gray", label="perfect calibration")
    confidence = [row["confidence"] for row in rows]
    axes.plot(confidence, accuracy, "o", color=_ORANGE, label="mean of a bin")
    axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left")
    error = f"<p>Expected calibration error {result['main_calibration_error']:.4f}.</p>\n"
    return error + _chart(figure, "reliability diagram")


def _axes(width: float, height: float):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _chart(figure, description: str) -> str:
    show_as_it_is(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return f'<img src="{html.data_address(file.getvalue(), "image/png")}" alt="{description}">'


def most_confident_mistakes(records: np.ndarray, count: int = MISTAKES) -> list[int]:
    """Returns the indices of the wrong examples with the highest scores, the highest first."""
    results = metrics.final_results(records)
    wrong = np.flatnonzero(results["rank"] > 0)
    order = np.argsort(-results["confidence"][wrong], kind="stable")
    return wrong[order][:count].tolist()


def _mistakes(split: Split, records: np.ndarray, names: list[str]) -> str:
    indices = most_confident_mistakes(records)
    figures = []
    for index, image in zip(indices, thumbnails(split, indices), strict=True):
        record, file = records[index], escape(split.name(index))
        figures.append(
            f'<figure><img src="{image}" alt="{file}"><figcaption>'
            f"<b>{escape(names[record['top'][0]])}</b> {record['scores'][0]:.1%}<br>"
            f"label: {escape(names[record['label']])}<br>"
            f'<span class="file">{file}</span></figcaption></figure>'
        )
    return f'<div class="images">{"".join(figures)}</div>' if figures else "<p>None.</p>"


def thumbnails(split: Split, indices: Iterable[int]) -> list[str]:
    """Returns a small JPEG of each example, as a `data:` address."""
    addresses = []
    for index in indices:
        encoded, _ = split.read(index)
        small = preprocessing.resize_shorter_side(preprocessing.decode(encoded), _THUMBNAIL)
        pixels = tf.cast(tf.clip_by_value(tf.round(small), 0, 255), tf.uint8)
        jpeg = tf.io.encode_jpeg(pixels, quality=_JPEG_QUALITY).numpy()
        addresses.append(html.data_address(jpeg, "image/jpeg"))
    return addresses

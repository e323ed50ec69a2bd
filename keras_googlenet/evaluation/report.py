"""The report of an evaluation: a page, `evaluation.json` and `predictions.csv`."""

import base64
import csv
import io
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_googlenet.atomic import replacing
from keras_googlenet.data import preprocessing
from keras_googlenet.data.datasets import Split
from keras_googlenet.evaluation import metrics
from keras_googlenet.evaluation.ensemble import Plan
from keras_googlenet.labels import TOP, split_label

_BLUE, _ORANGE = "#0072b2", "#e69f00"  # Okabe and Ito: told apart by color-blind eyes
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
    axes.plot([0, 1], [0, 1], "--", color="gray", label="as sure as right")
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
                color = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, count, ha="center", va="center", color=color, size=7)
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


_SIDE = 160  # pixels of the shorter side
_QUALITY = 85  # of the JPEG


def thumbnails(split: Split, numbers: Sequence[int]) -> list[str]:
    """Reads examples again and makes small pictures of them.

    Args:
        split: Where they are.
        numbers: Which, in any order.

    Returns:
        A `data:` address of a JPEG for each of `numbers`.
    """
    found = []
    for number in numbers:
        encoded, _ = split.read(number)
        small = preprocessing.resize_shorter_side(preprocessing.decode(encoded), _SIDE)
        pixels = tf.cast(tf.clip_by_value(tf.round(small), 0, 255), tf.uint8)
        jpeg = tf.io.encode_jpeg(pixels, quality=_QUALITY).numpy()
        found.append(f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}")
    return found


_PAIRS = 20  # confusions that are listed; evaluation.json has them all
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; }
th, td { padding: .15rem .8rem .15rem 0; text-align: left; font-variant-numeric: tabular-nums; }
th { border-bottom: 1px solid #999; }
td.number, th.number { text-align: right; }
td.bar { width: 22rem; }
td.bar div { height: .8rem; background: #0072b2; }
.scroll { max-height: 32rem; overflow: auto; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr));
            gap: 1rem; }
figure { margin: 0; font-size: .85rem; overflow-wrap: anywhere; }
figure img { width: 100%; height: 10rem; object-fit: contain; background: #f2f2f2; }
img.chart { max-width: 100%; }
.file { color: #666; }
"""


def render(result: dict, records: np.ndarray, labels: list[str], mistakes: list[dict]) -> str:
    """Writes the page.

    Args:
        result: Content of `evaluation.json`.
        records: Of all examples.
        labels: Class names.
        mistakes: `picture`, `name`, `label`, `predicted` and `score` of each to be shown.

    Returns:
        HTML.
    """
    title = f"{', '.join(result['models'])} on {result['dataset']}"
    sections = [
        ("Summary", _summary(result)),
        ("Errors by models and crops", _grid(result.get("table", []))),
        ("Classes, the worst first", _class_bars(result["main_classes"])),
        ("What is taken for what", _confusions(result["main_confusions"])),
        ("Confusion matrix", _matrix(records, labels)),
        ("Is it as sure as it is right?", _reliability(result)),
        ("Most confident mistakes", _mistakes(mistakes)),
    ]
    body = "\n".join(f"<h2>{name}</h2>\n{text}" for name, text in sections if text)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _summary(result: dict) -> str:
    count = len(result["models"])
    models = "one model" if count == 1 else f"the average of {count} models"
    crops = "one crop" if result["crops"] == 1 else f"{result['crops']} crops"
    sentence = (
        f"<p>{result['examples']} images, {crops} each, {models}; {result['seconds']:.0f} s.</p>\n"
    )
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
    names = ["head", "top-1", "top-5", "loss", "calibration error"]
    return sentence + _table(names, rows)


def _grid(rows: list[dict]) -> str:
    cells = [
        [row["models"], row["crops"], row["cost"], f"{row['top1_error']:.2%}"]
        + [f"{row['top5_error']:.2%}", f"{row['compared']:+.2%}"]
        for row in rows
    ]
    names = ["models", "crops", "cost", "top-1 error", "top-5 error", "against the first"]
    return _table(names, cells) if rows else ""


def _class_bars(classes: list[dict]) -> str:
    lines = [
        f"<tr><td>{_name(row['label'])}</td>"
        f'<td class="bar"><div style="width:{row["accuracy"]:.1%}"></div></td>'
        f'<td class="number">{row["accuracy"]:.1%}</td><td class="number">{row["top5"]:.1%}</td>'
        f'<td class="number">{row["examples"]}</td></tr>'
        for row in sorted(classes, key=lambda row: (row["accuracy"], row["top5"]))
    ]
    names = ("class", "", "top-1", "top-5", "images")
    return f'<div class="scroll"><table>{_head(names)}{"".join(lines)}</table></div>'


def _confusions(pairs: list[dict]) -> str:
    rows = [[pair["label"], pair["predicted"], pair["count"]] for pair in pairs[:_PAIRS]]
    rows = [[split_label(label)[1], split_label(guess)[1], count] for label, guess, count in rows]
    return _table(["class", "predicted", "images"], rows) if pairs else "<p>No mistakes.</p>"


def _matrix(records: np.ndarray, labels: list[str]) -> str:
    """Counts classes of the data set; what else was predicted shares a column."""
    predicted = metrics.reported(records)["predicted"]
    occurring = np.unique(records["label"])
    known = np.isin(predicted, occurring)
    columns = np.where(known, np.searchsorted(occurring, predicted), len(occurring))
    counts = np.zeros((len(occurring), len(occurring) + 1), int)
    np.add.at(counts, (np.searchsorted(occurring, records["label"]), columns), 1)
    names = [split_label(labels[number])[1] for number in occurring]
    if known.all():
        return _chart(confusion_matrix(counts[:, :-1], names, names), "confusion matrix")
    chart = confusion_matrix(counts, names, [*names, "any other"])
    return _chart(chart, "confusion matrix")


def _reliability(result: dict) -> str:
    error = f"<p>Expected calibration error {result['main_calibration_error']:.4f}.</p>\n"
    return error + _chart(reliability_diagram(result["main_calibration"]), "reliability")


def _mistakes(mistakes: list[dict]) -> str:
    figures = [
        f'<figure><img src="{row["picture"]}" alt="{escape(row["name"])}">'
        f"<figcaption><b>{_name(row['predicted'])}</b> {row['score']:.1%}<br>"
        f"is {_name(row['label'])}<br>"
        f'<span class="file">{escape(row["name"])}</span></figcaption></figure>'
        for row in mistakes
    ]
    return f'<div class="pictures">{"".join(figures)}</div>' if figures else "<p>None.</p>"


def _table(names: Sequence[str], rows: Iterable[Sequence]) -> str:
    lines = ["".join(f"<td>{escape(str(value))}</td>" for value in row) for row in rows]
    return f"<table>{_head(names)}{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _head(names: Sequence[str]) -> str:
    return f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>"


def _chart(address: str, text: str) -> str:
    return f'<img class="chart" src="{address}" alt="{text}">'


def _name(label: str) -> str:
    return escape(split_label(label)[1])


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
        file.write_text(render(result, records, labels, shown), encoding="utf-8")
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

"""The page of a report: plain HTML that needs no other file and no script."""

from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from keras_googlenet.evaluation import charts, metrics
from keras_googlenet.imagenet import split_label

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
        return _chart(charts.confusion_matrix(counts[:, :-1], names, names), "confusion matrix")
    chart = charts.confusion_matrix(counts, names, [*names, "any other"])
    return _chart(chart, "confusion matrix")


def _reliability(result: dict) -> str:
    error = f"<p>Expected calibration error {result['main_calibration_error']:.4f}.</p>\n"
    return error + _chart(charts.reliability_diagram(result["main_calibration"]), "reliability")


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

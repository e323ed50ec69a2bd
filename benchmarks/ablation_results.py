"""The results of benchmarks.ablations: the CSV files, the table and the figure."""

import csv
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError

REFERENCE = "reference"  # the setting that the others are compared with
FIGURE = Path("docs/images/ablations.png")
GRADIENTS = ("aux off", "aux 0.1", REFERENCE, "aux 1", "LRN, aux off", "LRN")  # of the table


def read(file: Path) -> list[dict]:
    """Returns the rows of a CSV file as texts; none if there is no file."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def write(file: Path, rows: list[dict]):
    """Writes a CSV file, all of it or nothing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def summary(rows: list[dict], order: Sequence[str]) -> dict[str, tuple[float, float, int]]:
    """Returns mean and standard deviation of the accuracy, and the number of runs, by setting.

    Raises:
        UserError: If the reference is not there, or runs differ in more than setting and seed.
    """
    values, kinds = defaultdict(list), set()
    for row in rows:
        values[row["setting"]].append(float(row["main_accuracy"]))
        kinds.add((row["images"], row["epochs"], row["batch_size"], row["precision"]))
    if REFERENCE not in values:
        raise UserError("the reference has no run yet; run it first.")
    if len(kinds) > 1:
        raise UserError("the runs differ in images, epochs, batch size or precision.")
    return {name: (*_mean_and_deviation(v), len(v)) for name in order if (v := values[name])}


def differences(rows: list[dict], name: str) -> tuple[float, float]:
    """Returns mean and deviation of a setting's accuracy minus the reference's, seed by seed."""
    reference, other = (
        {row["seed"]: float(row["main_accuracy"]) for row in rows if row["setting"] == setting}
        for setting in (REFERENCE, name)
    )
    return _mean_and_deviation([other[s] - reference[s] for s in other if s in reference])


def _mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """NaN where they cannot be computed."""
    if not values:
        return math.nan, math.nan
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else math.nan


def print_gradients(rows: list[dict]):
    """Prints the mean norm of each module's gradient over the seeds, at the start and the end."""
    norms = defaultdict(list)
    for row in rows:
        norms[row["part"], row["module"], row["setting"]].append(float(row["norm"]))
    settings = [name for name in GRADIENTS if any(key[2] == name for key in norms)]
    for part in ("start", "end"):
        print(f"\n| {part} | {' | '.join(settings)} |\n|---{'|---' * len(settings)}|")
        for module in dict.fromkeys(key[1] for key in norms):
            means = [statistics.mean(norms[part, module, name]) for name in settings]
            print(f"| {module} | {' | '.join(f'{mean:.2f}' for mean in means)} |")


def draw(rows: list[dict], order: Sequence[str], file: Path = FIGURE):
    """Prints the table and draws the accuracy of each setting with its standard deviation."""
    from matplotlib.figure import Figure

    results = summary(rows, order)
    reference = results[REFERENCE][0]
    print("| setting | main accuracy, % | minus reference, points | runs |\n|---|---|---|---|")
    for name, (mean, spread, runs) in results.items():
        change, uncertainty = differences(rows, name)
        change = f"{100 * change:+.1f} ± {100 * uncertainty:.1f}" if name != REFERENCE else ""
        print(f"| {name} | {100 * mean:.1f} ± {100 * spread:.1f} | {change} | {runs} |")
    names = list(results)[::-1]
    means, spreads = np.array([results[name][:2] for name in names]).T * 100
    figure = Figure(figsize=(7, 0.36 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    colors = ["#b5651d" if name == REFERENCE else "#3b6ea5" for name in names]
    axes.barh(names, means, xerr=spreads, color=colors)
    axes.axvline(100 * reference, color="#b5651d", linewidth=1, linestyle="--")
    axes.set_xlabel(
        "test accuracy of the main head, %; error bars: standard deviation of the seeds"
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    print(f"-> {file}")

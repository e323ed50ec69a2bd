"""The picture of a run: loss and accuracy of each head, training and validation."""

from pathlib import Path

from keras_googlenet.atomic import replacing
from keras_googlenet.googlenet import HEADS

_COLOURS = ("#0072b2", "#e69f00", "#009e73")  # Okabe and Ito: told apart by colour-blind eyes


def draw_curves(history: list[dict[str, float]], path: Path):
    """Draws `curves.png`.

    Args:
        history: One row of metrics an epoch, as in `history.csv`.
        path: Picture to write.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for head, colour in zip(HEADS, _COLOURS, strict=True):
            if f"{head}_{quantity}" in history[0]:
                _draw_head(axes, history, f"{head}_{quantity}", head, colour)
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    axes.legend(title="— training   ●– validation", fontsize="small")
    with replacing(path) as file:
        figure.savefig(file, dpi=120)


def _draw_head(axes, history, key: str, head: str, colour: str):
    epochs = [row["epoch"] + 1 for row in history]
    axes.plot(epochs, [row[key] for row in history], "-", color=colour, alpha=0.5)
    axes.plot(epochs, [row[f"val_{key}"] for row in history], "o--", color=colour, label=head)

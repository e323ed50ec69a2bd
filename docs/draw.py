"""Draws the network and one module, as built, into docs/images.

python -m docs.draw
"""

from pathlib import Path

from benchmarks.variants import multiply_adds, parameters
from docs.svg import LINE, MARGIN, MUTED, WIDTH, arrow, box, document, row, shares, text
from keras_googlenet import atomic, cli

IMAGES = Path(__file__).parent / "images"
POOL = "#f9d7d7"
FILLS = {
    "InputLayer": "#e4e7eb",
    "Conv2D": "#d3e3f8",
    "MaxPooling2D": POOL,
    "AveragePooling2D": POOL,
    "GlobalAveragePooling2D": POOL,
    "LocalResponseNormalization": "#e3def6",
    "Concatenate": "#ffffff",
    "Dropout": "#ffffff",
    "Dense": "#fdeeb5",
}  # of the kinds of layers that are drawn
SAME_SHAPE = ("LocalResponseNormalization", "Dropout")  # their rows show no shape
BRANCH_FILLS = {"1x1": "#d3e3f8", "3x3": "#d2ecd2", "5x5": "#fde0bd", "pool": POOL}
BRANCH_LABELS = {"1x1": "1×1", "3x3": "1×1 → 3×3", "5x5": "1×1 → 5×5", "pool": "pool → 1×1"}
CELL_WIDTHS = {"1x1": 48, "3x3": 88, "5x5": 80, "pool": 48}
TOP = 84  # below the heading
ROW, GAP = 34, 16
MODULE = 76  # height of a module in the drawing of the network
MAIN_WIDTH = 292  # of the column of the main network
SIDE = MARGIN + MAIN_WIDTH + 20  # where the auxiliary heads begin
SIDE_WIDTH = WIDTH - MARGIN - SIDE
EXAMPLE = "3a"  # the module that has a drawing of its own
COLUMN, SPACE = 108, 8  # width of a branch in that drawing, and what is between two
CELL = 80  # height of a layer in that drawing


def main():
    """Builds the network and writes both drawings."""
    cli.start_tensorflow()
    from keras_googlenet.googlenet import GoogLeNet

    model = GoogLeNet()
    for name, drawing in (("googlenet", network(model)), ("inception", module_comparison(model))):
        path = IMAGES / f"{name}.svg"
        with atomic.replacing(path) as written:
            written.write_text(drawing, encoding="utf-8")
        print(path)


def network(model) -> str:
    """Draws a row for each layer or module of a network, and the auxiliary heads beside theirs."""
    from keras_googlenet.googlenet import AUX_TAPS, HEADS, TABLE_1, inference_model

    trunk = inference_model(model)
    middle = MARGIN + MAIN_WIDTH / 2
    y, tops, parts = TOP, {}, []
    for layer in filter(in_the_column, trunk.layers):
        name = layer.name.removeprefix("inception_").removesuffix("_output")
        tops[name] = y
        if y > TOP:
            parts.append(arrow(middle, y - GAP, middle, y))
        if name in TABLE_1:
            parts.append(module(name, layer, TABLE_1[name], y))
            y += MODULE + GAP
        else:
            shape = "" if type(layer).__name__ in SAME_SHAPE else size(layer)
            parts.append(row(MARGIN, y, MAIN_WIDTH, ROW, fill(layer), describe(layer), shape))
            y += ROW + GAP
    parts += facts(trunk, model) + legend(tops[next(iter(TABLE_1))])
    parts += [aux(model, head, HEADS[head], tops[tap]) for head, tap in AUX_TAPS.items()]
    parts.append(text(WIDTH - MARGIN, y - GAP - 11, f"loss × {HEADS['main']:g}", anchor="end"))
    below = f"Table 1 of the paper, {for_an_image(model)}"
    return document("GoogLeNet", below, y - GAP + MARGIN, parts)


def in_the_column(layer) -> bool:
    """Whether a layer has a row: it is of a kind that is drawn, and not inside a module."""
    inside = layer.name.startswith("inception_") and not layer.name.endswith("_output")
    return type(layer).__name__ in FILLS and not inside


def fill(layer) -> str:
    """Returns the color of a layer."""
    return FILLS[type(layer).__name__]


def size(layer) -> str:
    """Writes the shape of a layer's output."""
    return "×".join(map(str, layer.output.shape[1:]))


def for_an_image(model) -> str:
    """Writes the size of image that the shapes and costs are of."""
    height, width = model.input_shape[1:3]
    return f"for an image of {height}×{width} pixels"


def describe(layer) -> str:
    """Names a layer with its window and stride, or its rate."""
    kind = type(layer).__name__
    if kind == "Dropout":
        return f"dropout {layer.rate:.0%}"
    if kind == "Dense":
        activation = layer.activation.__name__
        return "linear" if activation == "linear" else f"linear, {activation}"
    if kind == "GlobalAveragePooling2D":
        height, width = layer.input.shape[1:3]
        return f"average pool {height}×{width}"
    words = {"Conv2D": "conv", "MaxPooling2D": "max pool", "AveragePooling2D": "average"}
    if kind not in words:
        return {"InputLayer": "image"}.get(kind, "local response normalization")
    height, width = layer.kernel_size if kind == "Conv2D" else layer.pool_size
    stride = layer.strides[0]
    return f"{words[kind]} {height}×{width}" + (f" /{stride}" if stride > 1 else "")


def module(name: str, output, widths, y: float) -> str:
    """Draws a module: its filters by branch, and each branch's share of the output."""
    labels = {
        "1x1": f"{widths.conv1x1}",
        "3x3": f"{widths.reduce3x3}→{widths.conv3x3}",
        "5x5": f"{widths.reduce5x5}→{widths.conv5x5}",
        "pool": f"{widths.pool_proj}",
    }
    left = MARGIN + 8
    parts = [
        box(MARGIN, y, MAIN_WIDTH, MODULE, fill(output)),
        text(left, y + 22, f"inception {name}", bold=True),
        text(MARGIN + MAIN_WIDTH - 8, y + 22, size(output), anchor="end"),
        shares(left, y + 61, MAIN_WIDTH - 16, 8, channels(output), BRANCH_FILLS),
    ]
    for branch, width in CELL_WIDTHS.items():
        parts.append(box(left, y + 31, width, 26, BRANCH_FILLS[branch], labels[branch]))
        left += width + 4
    return f'<g id="{name}">{"".join(parts)}</g>'


def channels(output) -> dict[str, int]:
    """Returns the channels that each branch brings to a concatenation."""
    return dict(zip(BRANCH_FILLS, (one.shape[-1] for one in output.input), strict=True))


def aux(model, head: str, weight: float, y: float) -> str:
    """Draws an auxiliary classifier beside the module that it is on."""
    parts = [text(SIDE, y + 12, head, bold=True)]
    parts.append(text(WIDTH - MARGIN, y + 12, f"loss × {weight:g}", anchor="end"))
    y += 22
    parts.append(arrow(MARGIN + MAIN_WIDTH, y + ROW / 2, SIDE, y + ROW / 2))
    for layer in model.layers:
        if layer.name.startswith(head) and type(layer).__name__ in FILLS:
            hidden = hasattr(layer, "kernel") and layer.name != head
            label = describe(layer) + (f", {layer.output.shape[-1]}" if hidden else "")
            parts.append(box(SIDE, y, SIDE_WIDTH, ROW, fill(layer), label))
            y += ROW
            if layer.name != head:
                parts.append(arrow(SIDE + SIDE_WIDTH / 2, y, SIDE + SIDE_WIDTH / 2, y + 10))
            y += 10
    parts.append(text(WIDTH - MARGIN, y + 10, "training only", anchor="end", fill=MUTED))
    return f'<g id="{head}">{"".join(parts)}</g>'


def facts(trunk, model) -> list[str]:
    """Writes what the network costs, beside the stem."""
    lines = [
        ("Main network", True),
        (f"{parameters(trunk):,}", False),
        ("parameters", False),
        (f"{sum(map(multiply_adds, trunk.layers)) / 1e9:.2f} billion", False),
        ("multiply-adds", False),
        ("", False),
        ("All three heads", True),
        (f"{parameters(model):,}", False),
        ("parameters", False),
        ("", False),
        ("/2: stride 2", False),
    ]
    return [
        text(SIDE, TOP + 22 + LINE * index, line, bold=bold)
        for index, (line, bold) in enumerate(lines)
        if line
    ]


def legend(y: float) -> list[str]:
    """Explains the cells of a module, beside the first."""
    parts = [text(SIDE, y + 14, "In a module", bold=True)]
    for index, (branch, label) in enumerate(BRANCH_LABELS.items()):
        top = y + 28 + 26 * index
        parts.append(box(SIDE, top, 20, 20, BRANCH_FILLS[branch]))
        parts.append(text(SIDE + 28, top + 16, label))
    parts.append(text(SIDE, y + 152, "bar: shares of"))
    parts.append(text(SIDE, y + 152 + LINE, "the output"))
    return parts


def module_comparison(model) -> str:
    """Draws a module of the network, and the same without reductions."""
    import keras

    from keras_googlenet.googlenet import TABLE_1, VARIANTS, inception

    shape = model.get_layer(f"inception_{EXAMPLE}_1x1").input.shape[1:]
    y, parts, costs = TOP + 18, [], {}
    for name, variant, figure in (("With", "paper", "2b"), ("Without", "naive", "2a")):
        image = keras.Input(shape)
        output = inception(image, TABLE_1[EXAMPLE], EXAMPLE, VARIANTS[variant])
        alone = keras.Model(image, output)
        costs[name] = sum(map(multiply_adds, alone.layers))
        parts.append(text(MARGIN, y, f"{name} 1×1 reductions (Figure {figure})", bold=True))
        drawn, y = module_in_full(alone, y + 12)
        parts += drawn
        y += 46
    parts.append(text(MARGIN, y, "Multiply-adds, in millions", bold=True))
    y += 12
    for name, cost in costs.items():
        length = (WIDTH - 2 * MARGIN - 84) * cost / max(costs.values())
        parts.append(text(MARGIN, y + 22, name.lower()))
        times = cost / costs["With"]
        label = f"{cost / 1e6:.1f}" + (f", {times:.1f} times as many" if times > 1 else "")
        parts.append(box(MARGIN + 84, y, length, ROW, FILLS["Dense"], label))
        y += ROW + 8
    below = f"M: million multiply-adds, {for_an_image(model)}"
    return document(f"Inception module {EXAMPLE}", below, y + MARGIN - 8, parts)


def module_in_full(alone, y: float) -> tuple[list[str], float]:
    """Draws the layers of a module, branch by branch; also returns where the drawing ends."""
    layers = {layer.name.removeprefix(f"{EXAMPLE}_"): layer for layer in alone.layers}
    output = layers["output"]
    chains = {
        branch: [layers[n] for n in (f"{branch}_reduce", branch, f"{branch}_proj") if n in layers]
        for branch in BRANCH_FILLS
    }
    whole = WIDTH - 2 * MARGIN
    end = y + ROW + max(map(len, chains.values())) * (GAP + CELL)
    bar, scale = end + 28, whole / output.output.shape[-1]
    parts = [row(MARGIN, y, whole, ROW, FILLS["InputLayer"], "input", size(alone.layers[0]))]
    parts.append(shares(MARGIN, bar, whole, ROW, channels(output), BRANCH_FILLS))
    x = left = MARGIN
    for branch, chain in chains.items():
        middle, top = x + COLUMN / 2, y + ROW
        for position, layer in enumerate(chain):
            cell = end - CELL - (len(chain) - 1 - position) * (GAP + CELL)
            parts.append(arrow(middle, top, middle, cell))
            parts.append(box(x, cell, COLUMN, CELL, BRANCH_FILLS[branch], *in_detail(layer)))
            top = cell + CELL
        share = channels(output)[branch]
        center = left + share * scale / 2
        parts.append(arrow(middle, end, center, bar))
        parts.append(text(center, bar + 23, str(share), anchor="middle"))
        x, left = x + COLUMN + SPACE, left + share * scale
    parts.append(text(MARGIN, bar + ROW + LINE, f"output {size(output)}"))
    cost = f"{parameters(alone):,} parameters"
    parts.append(text(WIDTH - MARGIN, bar + ROW + LINE, cost, anchor="end"))
    return parts, bar + ROW + LINE


def in_detail(layer) -> list[str]:
    """Describes a layer in three short lines: what it is, its size, its cost."""
    kind, _, window = describe(layer).rpartition(" ")
    if not hasattr(layer, "kernel"):
        return [kind, window, f"{layer.output.shape[-1]} maps"]
    cost = f"{multiply_adds(layer) / 1e6:.1f} M"
    return [f"{kind} {window}", f"{layer.filters} filters", cost]


if __name__ == "__main__":
    cli.run(main)

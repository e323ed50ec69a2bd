"""The drawings of docs/images: up to date, true to the table of docs/architecture.md, readable."""

import math
import re
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple

import matplotlib
import pytest
from conftest import ROOT
from PIL import ImageFont

from docs import draw
from keras_googlenet.googlenet import GoogLeNet

FULL_WIDTH = True
IMAGES = ROOT / "docs" / "images"
NAMES = ["googlenet", "inception"]
PHONE = 360  # pixels across
SMALLEST = 12  # pixels of a letter there that is still read with ease
SVG = "{http://www.w3.org/2000/svg}"
PARTS = {
    "stem": r"conv[12]_",
    "1x1 branches": r"inception_.._1x1$",
    "reductions before 3x3": r"inception_.._3x3_reduce$",
    "3x3 convolutions": r"inception_.._3x3$",
    "reductions before 5x5": r"inception_.._5x5_reduce$",
    "5x5 convolutions": r"inception_.._5x5$",
    "projections after the pool": r"inception_.._pool_proj$",
    "main classifier": r"main$",
}  # the layers of each row of the page's table of costs
MODULES = "3a 3b 4a 4b 4c 4d 4e 5a 5b".split()


class Area(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def holds(self, other):
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )

    def meets(self, other):
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.bottom <= other.top or other.bottom <= self.top)


def read(name):
    return ElementTree.fromstring((IMAGES / f"{name}.svg").read_text(encoding="utf-8"))


def texts(root):
    return [element.text for element in root.iter(f"{SVG}text")]


def text_area(element):
    """What a text covers in DejaVu Sans, the widest of the usual sans-serif fonts."""
    bold = "-Bold" if element.get("font-weight") == "bold" else ""
    file = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans{bold}.ttf"
    height = float(element.get("font-size", 16))
    width = ImageFont.truetype(file, height).getlength(element.text)
    x, baseline = float(element.get("x")), float(element.get("y"))
    left = x - width * {None: 0, "middle": 0.5, "end": 1}[element.get("text-anchor")]
    return Area(left, baseline - 0.75 * height, left + width, baseline + 0.1 * height)


def box_area(element):
    x, y = float(element.get("x", 0)), float(element.get("y", 0))
    return Area(x, y, x + float(element.get("width")), y + float(element.get("height")))


def table():
    """The rows of the page's table by name; its numbers were typed from the paper."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines = [line.strip("| ").split("|") for line in page.splitlines() if line.startswith("|")]
    rows = [[cell.strip(" *`") for cell in cells] for cells in lines]
    return {row[0].partition("`")[0]: row[1:] for row in rows}


@pytest.fixture(scope="module")
def network():
    return GoogLeNet()


def test_drawings_are_what_the_code_draws_now(network):
    """After a change: python -m docs.draw."""
    assert (IMAGES / "googlenet.svg").read_text(encoding="utf-8") == draw.network(network)
    assert (IMAGES / "inception.svg").read_text(encoding="utf-8") == draw.module_comparison(network)


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_those_of_the_table(module):
    (group,) = read("googlenet").findall(f"{SVG}g[@id='{module}']")
    shape, conv1x1, reduce3x3, conv3x3, reduce5x5, conv5x5, pool, *_ = table()[
        f"inception_{module}"
    ]
    widths = [conv1x1, f"{reduce3x3}→{conv3x3}", f"{reduce5x5}→{conv5x5}", pool]
    assert texts(group) == [f"inception {module}", shape.replace(" x ", "×"), *widths]


def test_shapes_and_costs_of_the_network_are_those_of_the_table():
    drawn, rows = texts(read("googlenet")), table()
    shapes = [row[0].replace(" x ", "×") for row in rows.values() if re.match(r"\d+ x", row[0])]
    shapes.insert(shapes.index("56×56×192"), "56×56×64")  # its row has the reduction, too
    found = [text for text in drawn if re.fullmatch(r"\d+×\d+×\d+", text)]
    assert found == ["224×224×3", *shapes]
    assert rows["main network"][-2] in drawn and rows["three outputs"][-2] in drawn
    assert "1.58 billion" in drawn and rows["main network"][-1] == "1,582,671,872"


@pytest.mark.parametrize("part", PARTS)
def test_costs_by_part_are_those_of_the_layers(network, part):
    layers = [layer for layer in network.layers if re.match(PARTS[part], layer.name)]
    weights = [weight.shape for layer in layers for weight in layer.trainable_weights]
    kernels = [layer for layer in layers if hasattr(layer, "kernel")]
    products = [math.prod((*one.kernel.shape, *one.output.shape[1:-1])) for one in kernels]
    assert table()[part] == [f"{sum(map(math.prod, weights)):,}", f"{sum(products):,}"]


def test_costs_by_part_add_up_to_the_main_network():
    rows = table()
    for column in (-2, -1):
        total = sum(int(rows[part][column].replace(",", "")) for part in PARTS)
        assert f"{total:,}" == rows["main network"][column]


@pytest.mark.parametrize(("head", "tap"), [("aux1", "4a"), ("aux2", "4d")])
def test_heads_are_those_of_section_5(head, tap):
    root = read("googlenet")
    (group,) = root.findall(f"{SVG}g[@id='{head}']")
    layers = ["average 5×5 /3", "conv 1×1, 128", "linear, 1024", "dropout 50%", "linear, softmax"]
    assert texts(group) == [head, "loss × 0.3", *layers, "training only"]
    beside = box_area(root.find(f"{SVG}g[@id='{tap}']/{SVG}rect"))
    first = box_area(group.find(f"{SVG}rect"))
    assert beside.top < (first.top + first.bottom) / 2 < beside.bottom


def test_costs_of_the_module_are_those_of_arithmetic():
    """Positions x input channels x window x filters, of module 3a."""
    drawn = texts(read("inception"))
    reduced = {"14.5 M": 96, "2.4 M": 16, "9.6 M": 64, "4.8 M": 32}
    for label, filters in reduced.items():
        assert label in drawn and f"{28 * 28 * 192 * filters / 1e6:.1f} M" == label
    for label, inputs, side, filters in [
        ("86.7 M", 96, 3, 128),
        ("10.0 M", 16, 5, 32),
        ("173.4 M", 192, 3, 128),
        ("120.4 M", 192, 5, 32),
    ]:
        assert label in drawn and f"{28 * 28 * inputs * side**2 * filters / 1e6:.1f} M" == label
    weights = 192 * 64 + 192 * 9 * 128 + 192 * 25 * 32
    biases = 64 + 128 + 32
    assert f"{weights + biases:,} parameters" in drawn and "output 28×28×416" in drawn
    assert f"{table()['inception_3a'][-2]} parameters" in drawn and "output 28×28×256" in drawn
    assert "128.0" in drawn and f"{784 * weights / 1e6:.1f}, 2.4 times as many" in drawn


@pytest.mark.parametrize("name", NAMES)
def test_letters_are_large_enough_on_a_phone(name):
    root = read(name)
    scale = PHONE / float(root.get("viewBox").split()[2])
    sizes = [float(one.get("font-size", root.get("font-size"))) for one in root.iter(f"{SVG}text")]
    assert min(sizes) * scale >= SMALLEST


@pytest.mark.parametrize("name", NAMES)
def test_texts_stay_in_their_boxes_and_apart(name):
    root = read(name)
    boxes = [box_area(element) for element in root.iter(f"{SVG}rect")]
    areas = {}
    for element in root.iter(f"{SVG}text"):
        area = text_area(element)
        x, y = (area.left + area.right) / 2, (area.top + area.bottom) / 2
        around = [box for box in boxes if box.holds(Area(x, y, x, y))]
        box = min(around, key=lambda box: (box.right - box.left) * (box.bottom - box.top))
        assert box.holds(area), element.text
        for other, text in areas.items():
            assert not area.meets(other), (element.text, text)
        areas[area] = element.text

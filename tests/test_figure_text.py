import io
import warnings

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from PIL import Image

from keras_googlenet import figure_text
from keras_googlenet.figure_text import drawable, show_as_it_is

ORDERS_TEXT = matplotlib.__version_info__ >= (3, 11)
HIEROGLYPH = "\U00013000"  # which no font of matplotlib has


def pixels(text, literally=True):
    figure = Figure(figsize=(4, 1))
    figure.suptitle(text)
    if literally:
        show_as_it_is(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return np.asarray(Image.open(file))


def forget_fonts():
    figure_text._installed_fonts.cache_clear()
    figure_text._fonts_of.cache_clear()


@pytest.fixture(autouse=True)
def fonts_of_matplotlib(monkeypatch):
    """Whatever fonts the machine has."""
    fonts = [font for font in fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(fontManager, "ttflist", fonts)
    forget_fonts()
    yield
    forget_fonts()


@pytest.mark.parametrize("name", ["$a$", r"$\frac{1}$ $", "from $5 to $7", "a_b^c", "100%"])
def test_dollars_are_drawn_as_dollars(name):
    assert drawable(name, 0) == name
    escaped = name.replace("$", r"\$")  # matplotlib's own way to write a dollar
    np.testing.assert_array_equal(pixels(name), pixels(escaped, literally=False))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bell\x07", "bell"),
        ("\ue000\ud800", "class 7"),  # private use and half of a pair: nothing to draw
        ("cafe\u0301", "café"),
        ("a\u0324\u0308", "\u00e4\u0324"),  # of two marks one has a letter of its own
        ("smile 😀", "smile 😀"),
        (f"{HIEROGLYPH} a", "class 7"),
        ("שלום", "\u200eשלום\u200e"),
        ("شمس", "\u200eشمس\u200e"),
    ],
)
def test_names_are_drawn_in_silence(name, expected, monkeypatch, caplog):
    monkeypatch.setattr(matplotlib, "__version_info__", (3, 11))
    assert drawable(name, 7) == expected
    if "\u200e" in expected and not ORDERS_TEXT:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(f"{expected}  12%").std() > 0
    assert not caplog.records


def test_arabic_needs_a_matplotlib_that_orders_it(monkeypatch):
    monkeypatch.setattr(matplotlib, "__version_info__", (3, 10, 9))
    assert drawable("شمس", 2) == "class 2" and drawable("sun", 2) == "sun"


def test_a_font_that_has_the_letters_is_found(tmp_path, caplog):
    assert drawable(HIEROGLYPH, 4) == "class 4"
    path = tmp_path / "hieroglyphs.ttf"
    make_font(path, "Hieroglyphs", HIEROGLYPH)
    fontManager.addfont(path)
    forget_fonts()
    assert drawable(f"{HIEROGLYPH} $", 4) == f"{HIEROGLYPH} $"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn, letter = pixels(f"{HIEROGLYPH} a"), pixels("a")
    assert (drawn < 128).sum() > 2 * (letter < 128).sum()  # the glyph is a black square
    assert not caplog.records


def make_font(path, family, letter):
    """A font of one letter, which is a square."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 900), (900, 900), (900, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000)
    builder.setupGlyphOrder([".notdef", "square"])
    builder.setupCharacterMap({ord(letter): "square"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "square": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "square": (1000, 0)})
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(usWeightClass=400)
    builder.setupPost()
    builder.save(path)

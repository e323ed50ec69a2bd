"""Text from users, such as class names, in figures: drawn literally, in fonts that have it."""

import functools
import unicodedata

_NO_LETTERS = ("Last Resort High-Efficiency",)  # has a box for every character
_NOT_DRAWN = ("Cc", "Cn", "Co", "Cs")  # control, unassigned, private use, half of a pair
_MARK = "\u200e"  # the invisible left-to-right mark
_DEFAULT = "DejaVu Sans"  # comes with matplotlib
_REGULAR = 400  # matplotlib logs a warning about a family of other weights
_ORDERS_TEXT = (3, 11)  # the first matplotlib that writes Arabic and Hebrew from right to left


def drawable(name: str, index: int) -> str:
    r"""Returns a class name for a figure, or `class INDEX` if it cannot be drawn.

    Control characters are left out. Letters that no installed font has, and Arabic and Hebrew
    before matplotlib 3.11, cannot be drawn.

    Example:
    >>> drawable("from $5 to $7", 3), drawable("\x07", 3)
    ('from $5 to $7', 'class 3')
    """
    import matplotlib

    name = "".join(one for one in name if unicodedata.category(one) not in _NOT_DRAWN)
    name = unicodedata.normalize("NFC", name).strip()
    leftward = any(unicodedata.bidirectional(letter) in ("R", "AL") for letter in name)
    ordered = not leftward or matplotlib.__version_info__ >= _ORDERS_TEXT
    if not name or not ordered or not _fonts_of(name):
        return f"class {index}"
    return f"{_MARK}{name}{_MARK}" if leftward else name  # so that a score stays on the right


def show_as_it_is(figure):
    """Draws all texts of a matplotlib figure literally, each in fonts that have its letters.

    Matplotlib otherwise reads what stands between two `$` as a formula.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        fonts = _fonts_of(text.get_text())
        if fonts not in (None, (_DEFAULT,)):
            text.set_fontfamily(fonts)


@functools.cache
def _fonts_of(text: str) -> tuple[str, ...] | None:
    """Returns installed fonts that together have all letters of a text, if there are such."""
    missing = {ord(letter) for letter in text if unicodedata.category(letter)[0] not in "CZ"}
    chosen = [_DEFAULT]
    for font, file in _installed_fonts().items():
        letters = _letters(file) if missing else set()
        if missing & letters:
            chosen.append(font)
            missing -= letters
    return None if missing else tuple(dict.fromkeys(chosen))


@functools.cache
def _installed_fonts() -> dict[str, str]:
    """Returns the name and file of the regular fonts, the default one first."""
    from matplotlib.font_manager import fontManager

    return {
        font.name: font.fname
        for font in sorted(fontManager.ttflist, key=lambda font: (font.name != _DEFAULT, font.name))
        if (font.style, font.weight) == ("normal", _REGULAR) and font.name not in _NO_LETTERS
    }


@functools.cache
def _letters(file: str) -> set[int]:
    from matplotlib.font_manager import get_font

    return set(get_font(file).get_charmap())

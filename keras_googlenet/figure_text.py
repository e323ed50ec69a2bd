"""Text that users bring, such as class names, in figures: drawn as it is, in a font that has it."""

import functools
import unicodedata

_NO_LETTERS = {"Last Resort High-Efficiency"}  # has a box for every character
_DEFAULT = "DejaVu Sans"  # comes with matplotlib


def drawable(name: str, number: int) -> str:
    """Returns what a figure calls a class: its name, or `class NUMBER` if no font has its letters.

    Args:
        name: The name.
        number: Index of the class.
    """
    return f"class {number}" if _font_of(name) is None else name


def show_as_it_is(figure):
    """Switches mathematics off in all texts of a figure, and finds fonts for their letters.

    Matplotlib reads what stands between two `$` as a formula. Call it before the figure is drawn.

    Args:
        figure: Of matplotlib.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        font = _font_of(text.get_text())
        if font not in (None, _DEFAULT):
            text.set_fontfamily([_DEFAULT, font])


@functools.cache
def _font_of(name: str) -> str | None:
    """Returns an installed font that, beside the default one, has all letters of a name."""
    wanted = {ord(letter) for letter in name if unicodedata.category(letter)[0] not in "CZ"}
    fonts = _fonts()
    missing = wanted - _letters(fonts[_DEFAULT])
    if not missing:
        return _DEFAULT
    return next((font for font, file in fonts.items() if missing <= _letters(file)), None)


@functools.cache
def _fonts() -> dict[str, str]:
    """Returns the installed fonts by name, with a file of each."""
    from matplotlib.font_manager import fontManager

    found = {font.name: font.fname for font in fontManager.ttflist}
    return {name: found[name] for name in sorted(found) if name not in _NO_LETTERS}


@functools.cache
def _letters(file: str) -> set[int]:
    from matplotlib.font_manager import get_font

    return set(get_font(file).get_charmap())

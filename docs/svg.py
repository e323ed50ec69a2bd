"""Boxes, texts and arrows of the drawings in docs/images, as SVG."""

WIDTH = 480  # a phone shows it at three quarters of this, and texts of 16 at 12 pixels
MARGIN = 12
LINE = 22  # from one line of text in a box to the next
INK, MUTED = "#1f2933", "#52606d"
_ASCENT = 6  # from the middle of a line of text down to its baseline

_FRAME = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" \
width="{width}" height="{height}" role="img" font-family="Helvetica, Arial, sans-serif" \
font-size="16" fill="{ink}">
<title>{title}</title>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" \
markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{muted}"/></marker></defs>
<rect width="{width}" height="{height}" rx="8" fill="#f7f8fa"/>
{body}
</svg>
"""


def document(title: str, below: str, height: float, parts: list[str]) -> str:
    """Returns the file: a title, a line below it and the parts.

    They stand on a light background of their own, for pages with a dark one.
    """
    first = (
        f'<text x="{MARGIN}" y="38" font-size="26" font-weight="bold">{title}</text>',
        text(MARGIN, 64, below, fill=MUTED),
    )
    body = "\n".join((*first, *parts))
    size = {"width": WIDTH, "height": f"{height:g}"}
    return _FRAME.format(title=title, body=body, ink=INK, muted=MUTED, **size)


def text(x: float, y: float, content: str, anchor="start", bold=False, fill=INK) -> str:
    """Returns a line of text whose baseline is at `y`."""
    weight = ' font-weight="bold"' if bold else ""
    color = f' fill="{fill}"' if fill != INK else ""
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:g}" y="{y:g}"{place}{weight}{color}>{content}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, *lines: str) -> str:
    """Returns a box with centered lines of text."""
    parts = [
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="5" fill="{fill}" '
        f'stroke="{MUTED}"/>'
    ]
    baseline = y + height / 2 + _ASCENT - LINE * (len(lines) - 1) / 2
    for line in lines:
        parts.append(text(x + width / 2, baseline, line, anchor="middle"))
        baseline += LINE
    return "".join(parts)


def row(x: float, y: float, width: float, height: float, fill: str, left: str, right: str) -> str:
    """Returns a box with a text at either end; the right one may be empty."""
    baseline = y + height / 2 + _ASCENT
    parts = [box(x, y, width, height, fill), text(x + 8, baseline, left)]
    if right:
        parts.append(text(x + width - 8, baseline, right, anchor="end"))
    return "".join(parts)


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """Returns an arrow from the first point to the second."""
    return (
        f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{MUTED}" stroke-width="1.5" '
        'marker-end="url(#head)"/>'
    )


def shares(x: float, y: float, width: float, height: float, amounts: dict, fills: dict) -> str:
    """Returns a bar that is divided like the amounts."""
    parts, scale = [], width / sum(amounts.values())
    for name, amount in amounts.items():
        parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{amount * scale:g}" height="{height:g}" '
            f'fill="{fills[name]}" stroke="{MUTED}"/>'
        )
        x += amount * scale
    return "".join(parts)

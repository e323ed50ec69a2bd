"""Report pages: plain HTML that needs no other file, no network and no script."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 66rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; }
th, td { padding: .15rem .8rem .15rem 0; text-align: left; font-variant-numeric: tabular-nums; }
th { border-bottom: 1px solid #999; }
td.bar { width: 18rem; }
td.bar div { height: .8rem; background: #0072b2; }
.scroll { max-height: 32rem; overflow: auto; }
.images { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem; }
img { max-width: 100%; }
figure { margin: 0; font-size: .9rem; overflow-wrap: anywhere; }
figure img { width: 100%; height: 11rem; object-fit: contain; background: #f2f2f2; }
.top { display: flex; flex-wrap: wrap; gap: 2rem; align-items: center; }
.top img { width: 224px; }
.file { color: #555; }
p { max-width: 46rem; }
"""


def page(title: str, body: str) -> str:
    """Returns a complete page.

    Args:
        title: Plain text: the heading and the name of the browser's tab.
        body: HTML below the heading.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def table(names: Sequence[str], rows: Iterable[Sequence]) -> str:
    """Returns a table of values, which are escaped.

    Args:
        names: Headings of the columns.
        rows: The values of each row; a `Bar` is drawn.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    lines = ["".join(map(_cell, row)) for row in rows]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


class Bar(float):
    """A share in [0, 1] that a `table` draws as a bar."""


def _cell(value) -> str:
    if isinstance(value, Bar):
        return f'<td class="bar"><div style="width:{value:.1%}"></div></td>'
    return f"<td>{escape(str(value))}</td>"


def data_address(content: bytes, media_type: str) -> str:
    """Returns a `data:` address that holds an image inside the page.

    Args:
        content: The encoded image.
        media_type: Such as "image/png".
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"

"""The report on one photograph: every figure there is, with how to read it."""

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image

from keras_googlenet.explaining import figures
from keras_googlenet.explaining.cam import LAST_MODULE
from keras_googlenet.imagenet import decode_predictions

_THUMBNAIL = 220  # pixels
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; }
th, td { padding: .15rem .8rem .15rem 0; text-align: left; font-variant-numeric: tabular-nums; }
th { border-bottom: 1px solid #999; }
td.bar { width: 16rem; }
td.bar div { height: .8rem; background: #0072b2; }
img { max-width: 100%; }
.top { display: flex; flex-wrap: wrap; gap: 2rem; align-items: center; }
.top img { width: 224px; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr));
            gap: 1rem; }
figure { margin: 0; font-size: .9rem; overflow-wrap: anywhere; }
figure img { width: 100%; aspect-ratio: 1; object-fit: cover; background: #f2f2f2; }
.file { color: #555; }
p { max-width: 46rem; }
"""


class Section(NamedTuple):
    """A figure of a page: its heading, how to read it, and its picture as a `data:` address."""

    heading: str
    text: str
    picture: str


class Entry(NamedTuple):
    """A photograph in an index.

    Attributes:
        link: File that explains it, beside the index.
        name: File of the photograph.
        picture: Its `thumbnail`.
        best: Its best class with the score.
    """

    link: str
    name: str
    picture: str
    best: str


def render_page(title: str, square: np.ndarray, top: Sequence, sections: Sequence[Section]) -> str:
    """Writes the page of one photograph.

    Args:
        title: What is explained.
        square: `(s, s, 3)` uint8 RGB, what the network saw.
        top: Its best `Prediction`s.
        sections: The figures.

    Returns:
        HTML.
    """
    rows = "".join(
        f"<tr><td>{escape(row.name)}</td><td>{row.score:.1%}</td>"
        f'<td class="bar"><div style="width:{row.score:.1%}"></div></td></tr>'
        for row in top
    )
    best = f"<table><tr><th>class</th><th>score</th><th></th></tr>{rows}</table>"
    seen = f'<img src="{thumbnail(square)}" alt="what the network saw">'
    body = [f'<div class="top">{seen}{best}</div>']
    for section in sections:
        body.append(f"<h2>{escape(section.heading)}</h2>\n<p>{escape(section.text)}</p>")
        body.append(f'<img src="{section.picture}" alt="{escape(section.heading)}">')
    return _page(title, "\n".join(body))


def render_index(title: str, entries: Sequence[Entry]) -> str:
    """Writes the page that leads to those of many photographs.

    Args:
        title: What is explained.
        entries: The photographs.

    Returns:
        HTML.
    """
    cells = [
        f'<figure><a href="{quote(entry.link)}"><img src="{entry.picture}" '
        f'alt="{escape(entry.name)}"></a><figcaption>{escape(entry.best)}<br>'
        f'<span class="file">{escape(entry.name)}</span></figcaption></figure>'
        for entry in entries
    ]
    return _page(title, f'<div class="pictures">{"".join(cells)}</div>')


def thumbnail(square: np.ndarray) -> str:
    """Returns a small JPEG of a picture, `(s, s, 3)` uint8, as a `data:` address."""
    file = io.BytesIO()
    Image.fromarray(square).resize((_THUMBNAIL, _THUMBNAIL), Image.LANCZOS).save(
        file, "JPEG", quality=85
    )
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


_SIDE_BY_SIDE = 3  # classes that are explained

_CLASSES = (
    "Grad-CAM for the best classes, on one scale. A cell's value is what the last inception module "
    "adds there to the logit of the class; where it would lower the logit the map is cut off at "
    "0. Look for places that are bright for one class and dark for another: they decide."
)
_BRANCHES = (
    "What each branch of each inception module adds to the logit (red) or takes from it (blue). A "
    "row has one scale, and its four branches add up to the first map, of which Grad-CAM shows "
    "the positive part. The bars divide the sums of the branches by their absolute sums together. "
    "In 5b the sum is the logit without its bias; in earlier modules it is a linear estimate, "
    "which is often small because evidence for and against cancels."
)
_HEADS = (
    "The same class at the end of the main network and at the two auxiliary classifiers, which "
    "see the network up to 4a and 4d. Each map has its own scale. If an early head finds the "
    "same place, the class can be told from simpler and smaller features."
)
_METHODS = (
    "Six methods for the best class, each on its own scale. The first four weigh the channels of "
    "a feature map and are as coarse as it; the last two are gradients with respect to the pixels, "
    "which show what the score is sensitive to and not what speaks for the class."
)


def render(subject: figures.Subject, photograph: figures.Photograph, index: int) -> str:
    """Draws all figures of a photograph and lays them out as one page.

    Args:
        subject: The network.
        photograph: What it looks at.
        index: The class to explain.

    Returns:
        HTML that holds everything.
    """
    scores = photograph.scores["main"]
    top = decode_predictions(scores[None], labels=subject.labels)[0]
    order = [row.index for row in top]
    beside = [index, *(other for other in order if other != index)][:_SIDE_BY_SIDE]
    layer = f"inception_{LAST_MODULE['main']}_output"
    drawn = [
        (
            "Where the evidence lies",
            _CLASSES,
            figures.draw_classes(subject, photograph, beside, layer, "gradcam", "main"),
        ),
        (
            "Branch by branch",
            _BRANCHES,
            figures.draw_branches(subject, photograph, index, "main"),
        ),
    ]
    if len(photograph.scores) > 1:
        heads = figures.draw_heads(subject, photograph, index, "gradcam")
        drawn.append(("Head by head", _HEADS, heads))
    methods = figures.draw_methods(subject, photograph, index, layer, "main")
    drawn.append(("Method by method", _METHODS, methods))
    sections = [Section(heading, text, figures.as_data(figure)) for heading, text, figure in drawn]
    title = f"{photograph.file}: {subject.name(index)}"
    return render_page(title, photograph.square, top, sections)

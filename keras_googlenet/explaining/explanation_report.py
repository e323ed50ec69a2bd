"""Pages of figures: the report on one image, and the index of several."""

import io
from collections.abc import Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image

from keras_googlenet import html
from keras_googlenet.explaining import figures
from keras_googlenet.imagenet import decode_predictions

_THUMBNAIL = 220  # pixels
_SIDE_BY_SIDE = 3  # classes that are explained

_CLASSES = (
    "Grad-CAM for the best classes, on one scale. A cell's value is what the inception module adds "
    "there to the logit of the class; where it would lower the logit the map is cut off at 0. "
    "Cells that are bright for one class and dark for another decide between them."
)
_BRANCHES = (
    "What each branch of each inception module adds to the logit (red) or takes from it (blue). A "
    "row has one scale, and its four branches add up to the first map, of which Grad-CAM shows "
    "the positive part. The bars divide the sums of the branches by their absolute sums together. "
    "In 5b the sum is the logit without its bias; in earlier modules it is a linear estimate, "
    "which is often small because evidence for and against cancels."
)
_HEADS = (
    "The same class at the main head and at the two auxiliary classifiers, which see the network "
    "up to 4a and 4d. Each map has its own scale. If an early head uses the same part of the "
    "image, simpler and smaller features are enough to recognize the class."
)
_METHODS = (
    "All methods for the best class, each on its own scale. The maps of a layer are as coarse as "
    "its cells. Saliency and SmoothGrad are gradients with respect to the pixels: they show what "
    "the score is sensitive to, and not what is evidence for the class."
)


class Entry(NamedTuple):
    """An image in an index."""

    link: str  # file that explains it, beside the index
    name: str  # file of the image
    thumbnail: str
    scores: str  # its classes with their scores


def render(loaded, image: figures.ClassifiedImage, index: int) -> str:
    """Draws all figures of one class of an image and returns them as one HTML page."""
    top = decode_predictions(image.scores["main"][None], labels=loaded.labels)[0]
    classes = [index, *(row.index for row in top if row.index != index)][:_SIDE_BY_SIDE]
    explained = loaded, image
    sections = [
        (
            "Where the evidence lies",
            _CLASSES,
            figures.draw_classes(*explained, classes, None, "gradcam", "main"),
        ),
        ("Branch by branch", _BRANCHES, figures.draw_branches(*explained, index, "main")),
    ]
    if len(image.scores) > 1:
        heads = figures.draw_heads(*explained, index, "gradcam")
        sections.append(("Head by head", _HEADS, heads))
    methods = figures.draw_methods(*explained, index, None, "main")
    sections.append(("Method by method", _METHODS, methods))
    rows = [(row.name, f"{row.score:.1%}", html.Bar(row.score)) for row in top]
    seen = f'<img src="{thumbnail(image.square)}" alt="what the network saw">'
    body = [f'<div class="top">{seen}{html.table(["class", "score", ""], rows)}</div>']
    for heading, text, figure in sections:
        address = html.data_address(figures.as_jpeg(figure), "image/jpeg")
        tag = f'<img src="{address}" alt="{heading}">'
        body.append(f"<h2>{heading}</h2>\n<p>{text}</p>\n{tag}")
    return html.page(f"{image.file}: {figures.class_name(loaded, index)}", "\n".join(body))


def render_index(title: str, entries: Sequence[Entry]) -> str:
    """Returns the HTML page that links to the explanations of several images."""
    cells = [
        f'<figure><a href="{quote(entry.link)}"><img src="{entry.thumbnail}" '
        f'alt="{escape(entry.name)}"></a><figcaption>{escape(entry.scores)}<br>'
        f'<span class="file">{escape(entry.name)}</span></figcaption></figure>'
        for entry in entries
    ]
    return html.page(title, f'<div class="images">{"".join(cells)}</div>')


def thumbnail(square: np.ndarray) -> str:
    """Returns a small JPEG of an image, `(s, s, 3)` uint8, as a `data:` address."""
    file = io.BytesIO()
    small = Image.fromarray(square).resize((_THUMBNAIL, _THUMBNAIL), Image.LANCZOS)
    small.save(file, "JPEG", quality=85)
    return html.data_address(file.getvalue(), "image/jpeg")

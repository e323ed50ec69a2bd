"""The report on one photograph: every figure there is, with how to read it."""

from keras_googlenet.explaining import figures, page, pictures
from keras_googlenet.explaining.network import LAST_MODULE
from keras_googlenet.imagenet import decode_predictions

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


def render(subject: pictures.Subject, photograph: pictures.Photograph, index: int) -> str:
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
            pictures.draw_classes(subject, photograph, beside, layer, "gradcam", "main"),
        ),
        (
            "Branch by branch",
            _BRANCHES,
            pictures.draw_branches(subject, photograph, index, "main"),
        ),
    ]
    if len(photograph.scores) > 1:
        heads = pictures.draw_heads(subject, photograph, index, "gradcam")
        drawn.append(("Head by head", _HEADS, heads))
    methods = pictures.draw_methods(subject, photograph, index, layer, "main")
    drawn.append(("Method by method", _METHODS, methods))
    sections = [
        page.Section(heading, text, figures.as_data(figure)) for heading, text, figure in drawn
    ]
    title = f"{photograph.file}: {subject.name(index)}"
    return page.render_page(title, photograph.square, top, sections)

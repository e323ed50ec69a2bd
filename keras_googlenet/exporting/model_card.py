"""The model card: what a person needs to know about an export, as Markdown beside it."""

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from keras_googlenet.atomic import replacing
from keras_googlenet.data.preprocessing import CROP_RATIO
from keras_googlenet.exporting.agreement import Agreement
from keras_googlenet.exporting.formats import FORMATS
from keras_googlenet.googlenet import HEADS, VARIANTS, Publisher
from keras_googlenet.labels import TOP, labels_path, one_line
from keras_googlenet.run_files import METRICS_FILE

CARD_FILE = "MODEL_CARD.md"
FIRST_LABELS = 5  # that the card names
_UNKNOWN = "Not known: the network was not exported from a run directory."
_UNREADABLE = "In `recipe.json` of the run, which is of another version of keras_googlenet."
_CARD = """\
---
pipeline_tag: image-classification
tags:
- googlenet
---

# GoogLeNet{of}

Exported by keras_googlenet from {source}.

## Network

{network}

## Input and output

{signatures}

{preprocessing}

## Labels

{labels}

## Training data

{data}

## Recipe

{recipe}

## Metrics

{metrics}

## Limits

{limits}

## License

{license}
"""


def card_path(kind: str, path: Path) -> Path:
    """Returns the card of an export: inside a SavedModel's version, beside a file with its name."""
    return path.with_name(f"{path.name}.{CARD_FILE}") if FORMATS[kind].suffix else path / CARD_FILE


def write_card(
    loaded,
    published: bool,
    command: str | None,
    kind: str,
    path: Path,
    options: dict[str, str],
    agreement: Agreement,
) -> Path:
    """Writes the model card of an export.

    Args:
        loaded: What `models.load` returned.
        published: Whether its weights are those of the variant's publisher.
        command: The command that trains the network again; `None` if not known.
        kind: Key of `FORMATS`.
        path: The file, or the folder of the version.
        options: The format's own options.
        agreement: How the export compares with the network.

    Returns:
        The card.
    """
    spec, recipe = VARIANTS[loaded.variant], loaded.recipe
    publisher = spec.publisher if published else None
    start = recipe and recipe.get("weights")
    metrics = _read_metrics(loaded.workdir) if loaded.workdir else {}
    text = _CARD.format(
        of=_of(recipe, publisher),
        source="a run of train.py" if recipe else "published weights" if published else "a file",
        network=_network(loaded, kind, options, agreement),
        signatures=_signatures(kind, loaded.image_size, len(loaded.labels), options),
        preprocessing=_preprocessing(kind, loaded.image_size),
        labels=_labels(kind, path, loaded.labels),
        data=_data(recipe, metrics, publisher),
        recipe=_recipe(recipe, command),
        metrics=_metrics(recipe, metrics, publisher),
        limits=_limits(metrics, options, published or start == "imagenet"),
        license=_license(spec.publisher, published, start),
    )
    file = card_path(kind, path)
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return file


def code(text: str) -> str:
    r"""Returns text of a user as a code span, in which Markdown and HTML mean nothing.

    Example:
    >>> code("a`b"), code("<b>\n| *c*")
    ('`` a`b ``', '`<b> | *c*`')
    """
    text = "".join(c if c.isprintable() else "\ufffd" for c in one_line(str(text))) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def _bullets(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items if item)


def _read_metrics(workdir: Path) -> dict:
    """Returns the content of `metrics.json`; empty where it is missing, as in an unfinished run."""
    try:
        return json.loads((workdir / METRICS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _name(dataset: str) -> str:
    """Returns the name of a data set without the folders that it is in on one machine."""
    return code(os.path.basename(os.path.normpath(dataset)) if os.path.isabs(dataset) else dataset)


def _of(recipe: dict | None, publisher: Publisher | None) -> str:
    if publisher:
        return f": {publisher.name}"
    return f" trained on {_name(recipe['dataset'])}" if recipe else ""


def _network(loaded, kind: str, options: dict[str, str], agreement: Agreement) -> str:
    spec = VARIANTS[loaded.variant]
    count, of, folder = agreement.origin.partition(" images of ")
    agreement = agreement._replace(origin=f"{count}{of}{_name(folder)}" if of else count)
    settings = "".join(f", {name} {value}" for name, value in options.items())
    return _bullets(
        [
            f"GoogLeNet (Inception v1, arXiv 1409.4842), variant `{loaded.variant}`: "
            f"{'batch' if spec.batch_norm else 'local response'} normalization, "
            f"{spec.kernel5x5}x{spec.kernel5x5} convolutions in the third branch",
            f"Main head, {len(loaded.labels):,} classes, {loaded.image_size} x "
            f"{loaded.image_size} pixels",
            f"Format: {FORMATS[kind].title}{settings}",
            f"Compared {agreement}".replace("against", "with", 1),
        ]
    )


def _signatures(kind: str, size: int, classes: int, options: dict[str, str]) -> str:
    dtype = options.get("io", "float32")
    offset = {"float32": "", "uint8": " (value / 256)", "int8": " ((value + 128) / 256)"}[dtype]
    image = f"`image` {dtype} (n, {size}, {size}, 3), RGB in [0, 255]"
    rows = [[f"{image}{' minus 128' if dtype == 'int8' else ''}"]]
    rows[0].append(f"`probabilities` {dtype} (n, {classes}){offset}")
    header = ["input", "output"]
    if not FORMATS[kind].suffix:
        best = f"(n, {min(TOP, classes)})"
        header = ["signature", *header]
        rows = [
            ["`serving_default`", *rows[0]],
            [
                "`classify`",
                "`image_bytes` string (n,): JPEG, PNG, WebP, BMP or GIF",
                f"`classes` string and `scores` float32, {best}",
            ],
            ["`features`", image, "`features` float32 (n, channels)"],
        ]
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _preprocessing(kind: str, size: int) -> str:
    text = (
        "Preprocessing is inside: pass pixel values, not normalized ones. Of an image of another "
        f"size the shorter side is resized to {round(size * CROP_RATIO)} pixels, and the central "
        f"{size} x {size} are cut out; "
    )
    by_whom = "do that before the call" if FORMATS[kind].suffix else "`classify` does that itself"
    return f"{text}{by_whom}. EXIF orientations are ignored."


def _labels(kind: str, path: Path, labels: list[str]) -> str:
    file = labels_path(path).name if FORMATS[kind].suffix else "assets.extra/labels.txt"
    more = len(labels) - FIRST_LABELS
    names = ", ".join(map(code, labels[:FIRST_LABELS])) + (f" and {more:,} more" * (more > 0))
    return f"In {code(file)}, one a line, in the order of the outputs: {names}."


def _data(recipe: dict | None, metrics: dict, publisher: Publisher | None) -> str:
    if recipe is None:
        return f"That of {publisher.name}; not checked here." if publisher else _UNKNOWN
    data = metrics.get("data", {})
    splits = [
        f"{use} images: {split['images']:,} of {split['classes']:,} classes in "
        f"{code(split['source'])}"
        for use, split in (("Training", data.get("train")), ("Validation", data.get("validation")))
        if split
    ]
    left_out = [f"Left out: {x['count']:,} {code(x['what'])}" for x in data.get("left_out", [])]
    return _bullets([f"Data set: {_name(recipe['dataset'])}", *splits, *left_out])


def _recipe(recipe: dict | None, command: str | None) -> str:
    if command:
        return f"```bash\n{command}\n```"
    return _UNKNOWN if recipe is None else _UNREADABLE


def _metrics(recipe: dict | None, metrics: dict, publisher: Publisher | None) -> str:
    if publisher and publisher.accuracy:
        top1, top5 = publisher.accuracy
        return (
            f"As published, on ILSVRC 2012's validation images, one crop: top-1 {top1:.1%}, top-5 "
            f"{top5:.1%}. Not measured here."
        )
    heads = [head for head in HEADS if f"val_{head}_accuracy" in metrics]
    if not heads:
        if recipe is None and publisher is None:
            return _UNKNOWN
        return "Not measured." if publisher else "Not known: the run has no metrics.json."
    rows = "\n".join(
        f"| {head} | {metrics[f'val_{head}_accuracy']:.2%} | {metrics[f'val_{head}_top5']:.2%} "
        f"| {metrics[f'val_{head}_loss']:.4f} |"
        for head in heads
    )
    return (
        f"On the validation images, before the export, after epoch {metrics['kept_epoch']} of "
        f"{metrics['epochs']}; the main head is exported:\n\n| head | accuracy | top-5 | loss |\n"
        f"|---|---|---|---|\n{rows}"
    )


def _limits(metrics: dict, options: dict[str, str], imagenet: bool) -> str:
    items = [
        "It knows these classes only: an image of anything else also gets one of them, sometimes "
        "with a high probability.",
        "It names one class per image, judged from the center crop; the probabilities are not "
        "calibrated.",
    ]
    images = (metrics.get("data", {}).get("validation") or {}).get("images")
    accuracy = metrics.get("val_main_accuracy")
    if images and accuracy:
        margin = 1.96 * (accuracy * (1 - accuracy) / images) ** 0.5
        items.append(
            f"{images:,} validation images determine the accuracy to ±{margin:.1%} (95% interval), "
            "for images like them only."
        )
    if imagenet:
        items.append(
            "ImageNet's photographs are mostly from North America and Europe (Shankar et al. 2017, "
            "arXiv 1711.08536), and three of its classes are people."
        )
    if options.get("quantize") == "int8":
        items.append(
            "int8: probabilities are multiples of 1/256; accuracy drops further for images unlike "
            "the calibration images."
        )
    items.append(
        "Not evaluated: errors by group of people, region or camera, and images made to deceive "
        "it. Do not use it for decisions about people, health or safety."
    )
    return _bullets(items)


def _license(publisher: Publisher | None, published: bool, start: str | None) -> str:
    """Names the license of the weights, or of those that training started from, `start`."""
    if not published and start is None:
        return "Not stated. Add that of the weights; the terms of their training data apply."
    if not published and start != "imagenet":
        return f"Training started from {_name(start)}: its license applies, and is not known here."
    whose = "The weights" if published else "Training started from published weights"
    return (
        f"{whose}: {publisher.name}, {publisher.url}, license: {publisher.license}. ImageNet's "
        "images are for non-commercial research and education."
    )

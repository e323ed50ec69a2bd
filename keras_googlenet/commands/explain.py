"""Shows where in an image the evidence for a class lies.

    python explain.py runs/shapes photo.jpg --output photo_cam.png
    python explain.py runs/shapes photo.jpg --branches
    python explain.py runs/shapes photo.jpg --classes star,cross --method layercam
    python explain.py runs/shapes folder/ --report report

One image gives one figure; several, or a folder, give a folder of figures with an index page.
docs/explaining.md says how to read them; visualize.py draws what channels respond to.
"""

import argparse
import csv
from collections.abc import Iterable, Sequence
from itertools import chain, count
from pathlib import Path

from keras_googlenet import cli
from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError
from keras_googlenet.explaining.methods import METHODS

FIGURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf")
FOLDER = Path("explanations")  # of several images, unless --output or --report names one
INDEX = "index.html"
IGNORED = {  # by a figure
    "branches": ("layer", "method"),
    "heads": ("layer", "head"),
    "report": ("output", "layer", "method", "head"),
}


def main():
    """Explains every image, and continues after one that cannot be read."""
    flags = parse_flags()
    errors = []
    cli.start_tensorflow()
    from keras_googlenet import models
    from keras_googlenet.data import image_files, pillow_images
    from keras_googlenet.explaining import explanation_report, figures
    from keras_googlenet.progress_bar import Progress

    files = list_images(flags, errors)
    if not files:
        cli.fail_if(errors)
    loaded = models.load(flags.model, flags.variant)
    classes = [index for text in flags.classes for index in find_classes(text, loaded.labels)]
    if len(classes) > 1 and (flags.figure != "map" or flags.method == "all"):
        raise UserError("--branches, --heads, --report and --method all take one class.")
    paths = output_paths(flags, files)
    entries, turned, progress = [], {}, Progress(len(files))
    for file, path in zip(files, paths, strict=True):
        try:
            image = figures.classify(loaded, file, image_files.read_upright(file, turned))
        except UserError as error:
            errors.append(error)
        else:
            scores = explain(flags, loaded, image, classes, path)
            progress.print(f"{scores} -> {path}")
            entries.append(
                explanation_report.Entry(
                    path.name, file, explanation_report.thumbnail(image.square), scores
                )
            )
        progress.update(1)
    progress.close()
    pillow_images.note_turned(turned, cli.note)
    if entries and flags.several:
        index = paths[0].parent / INDEX
        write_page(
            index, explanation_report.render_index(f"{flags.model}: {len(entries)} images", entries)
        )
        print(index)
    cli.fail_if(errors)


def parse_flags() -> argparse.Namespace:
    """Reads the flags and refuses those that the figure would ignore."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    cli.add_model(parser)
    add("images", metavar="IMAGE", nargs="+", type=cli.local, help="image file, or folder of them")
    output = f"file or folder (default: IMAGE with _cam.png, or the folder {FOLDER})"
    add("--output", type=cli.local_path, help=output)
    classes = (
        "names, wnids or indices of classes (default: the best class); in a list, quote a name "
        "that has a comma, as in '\"red, round\",star', or repeat the flag for each class"
    )
    add("--classes", metavar="NAME,...", action="append", default=[], help=classes)
    layer = (
        "feature map (default: the last module with at least 5 cells across, "
        "inception_5b_output at 224 pixels); earlier ones are finer"
    )
    add("--layer", help=layer)
    add("--method", default="gradcam", choices=(*METHODS, "all"), help="all: side by side")
    add("--head", default="main", choices=("main", "aux1", "aux2"), help="whose score is explained")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--branches", action="store_true", help="every branch of every module")
    kinds.add_argument("--heads", action="store_true", help="the main head beside aux1 and aux2")
    report = "write a page with all figures of each image to this folder"
    kinds.add_argument("--report", type=cli.local_path, metavar="DIR", help=report)
    flags = parser.parse_intermixed_args()
    flags.figure = next((name for name in IGNORED if getattr(flags, name)), "map")
    for name in IGNORED.get(flags.figure, ()):
        if getattr(flags, name) != parser.get_default(name):
            parser.error(f"--{flags.figure} takes no --{name}; leave it out.")
    if flags.heads and flags.method == "all":
        parser.error("--method all is a figure of its own: leave --heads out.")
    if flags.layer and flags.method in METHODS and not METHODS[flags.method].uses_layer:
        parser.error(f"--method {flags.method} works on pixels and takes no --layer; leave it out.")
    flags.several = len(flags.images) > 1 or Path(flags.images[0]).is_dir()
    if flags.output and flags.several == (flags.output.suffix.lower() in FIGURE_SUFFIXES):
        kind = "a folder" if flags.several else f"a figure ({', '.join(FIGURE_SUFFIXES)})"
        parser.error(f"--output must be {kind} here; it is {flags.output}.")
    return flags


def find_classes(text: str, labels: Sequence[str]) -> list[int]:
    """Returns the index of a class, or of several with commas between them."""
    from keras_googlenet.labels import find_class

    try:
        return [find_class(text, labels)]
    except UserError:
        names = next(csv.reader([text], skipinitialspace=True), [])
        return [find_class(name, labels) for name in names if name.strip()]


def list_images(flags: argparse.Namespace, errors: list[UserError]) -> list[str]:
    """Expands folders, without the figures of an earlier run that lie in one of them."""
    from keras_googlenet.data import folders

    output = (flags.report or flags.output or FOLDER).resolve()
    files = []
    for name in flags.images:
        try:
            images = folders.list_images([name], cli.note, convertible=True)
        except UserError as error:
            errors.append(error)
            continue
        if output.is_relative_to(Path(name).resolve()) and output != Path(name).resolve():
            images = [file for file in images if not Path(file).resolve().is_relative_to(output)]
            if not images:
                errors.append(UserError(f"{name} holds no image outside {output}; give another."))
        files += images
    return files


def output_paths(flags: argparse.Namespace, files: list[str]) -> list[Path]:
    """Returns the file for each image: one of its own, and not one of the images."""
    kind = "methods" if flags.method == "all" else flags.figure
    ending = {"map": "_cam.png", "report": ".html"}.get(kind, f"_{kind}.png")
    if flags.several or flags.report:
        folder = flags.report or flags.output or FOLDER
        names = distinct_names((Path(file).stem for file in files), ending)
        paths = [folder / name for name in names]
    else:
        photo = Path(files[0])
        paths = [flags.output or photo.with_name(photo.stem + ending)]
    images = {Path(file).resolve() for file in files}
    for path in paths:
        if path.resolve() in images:
            raise UserError(f"{path} is an image to be explained; give another --output.")
    return paths


def distinct_names(stems: Iterable[str], ending: str) -> list[str]:
    """Adds the ending, and a number where the name is used, in any case or by the index."""
    used, names = {INDEX}, []
    for stem in stems:
        numbered = (f"{stem}_{number}{ending}" for number in count(2))
        free = (name for name in chain([stem + ending], numbered) if name.casefold() not in used)
        names.append(next(free))
        used.add(names[-1].casefold())
    return names


def explain(flags: argparse.Namespace, loaded, image, classes: list[int], path: Path) -> str:
    """Writes the figures of one image, and returns its classes with their scores."""
    from keras_googlenet.explaining import explanation_report, figures

    if flags.head not in image.scores:
        heads = ", ".join(image.scores)
        raise UserError(f"--head: {flags.model} has no head {flags.head}; it has {heads}.")
    scores = image.scores[flags.head]
    best = int(scores.argmax())
    classes = classes or [best]
    explained, index = (loaded, image), classes[0]
    if flags.report:
        write_page(path, explanation_report.render(*explained, index))
    elif flags.branches:
        figures.save(figures.draw_branches(*explained, index, flags.head), path)
    elif flags.heads:
        figures.save(figures.draw_heads(*explained, index, flags.method), path)
    elif flags.method == "all":
        figures.save(figures.draw_methods(*explained, index, flags.layer, flags.head), path)
    else:
        how = flags.layer, flags.method, flags.head
        figures.save(figures.draw_classes(*explained, classes, *how), path)
    named = {
        index: f"{figures.class_name(loaded, index)} {scores[index]:.1%}"
        for index in (*classes, best)
    }
    line = ", ".join(named[index] for index in classes)
    return line if best in classes else f"{line} (best: {named[best]})"


def write_page(path: Path, html: str):
    """Writes an HTML file, whole or not at all."""
    with replacing(path) as file:
        file.write_text(html, encoding="utf-8")

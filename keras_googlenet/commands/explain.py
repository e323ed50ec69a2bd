"""Shows what the network sees: where in a picture the evidence for a class lies, and features.

    python explain.py runs/shapes photo.jpg --output photo_cam.png
    python explain.py runs/shapes photo.jpg --branches
    python explain.py runs/shapes photo.jpg --classes star,cross --method layercam
    python explain.py runs/shapes folder/ --report report
    python explain.py imagenet --features inception_4c_output:12-20 --output atlas.png
    python explain.py imagenet --circuit inception_4b_output:3 inception_4c_3x3:17

Of one image a picture is written; of several, or of a folder, a folder of them with an index page.
docs/explaining.md says how to read the pictures.
"""

import argparse
from collections.abc import Iterable
from itertools import chain, count
from pathlib import Path

from keras_googlenet import cli
from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError

PICTURES_TOGETHER = 16  # that the optimizer moves at a time: about 2 GB at 160 pixels
EXAMPLES_TOGETHER = 64
LEAST_SIZE = 32  # the network halves a picture five times
OF_PIXELS = ("saliency", "smoothgrad")
METHODS = ("gradcam", "gradcam++", "layercam", "scorecam", *OF_PIXELS)
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".svg", ".pdf")  # what a figure is written as
INDEX = "index.html"

OF_UNITS = ("output", "neuron", "size", "steps", "seed")
TAKEN = {  # figure -> the flags that have a meaning for it
    "map": ("output", "classes", "layer", "method", "head"),
    "branches": ("output", "classes", "head"),
    "heads": ("output", "classes", "method"),
    "report": ("classes",),
    "features": (*OF_UNITS, "diversity", "dataset", "data_dir"),
    "circuit": OF_UNITS,
}


def main():
    """Reads the flags and does what the docstring above says."""
    flags = parse_flags()
    cli.start_tensorflow()
    if flags.features or flags.circuit:
        show_features(flags)
    else:
        explain_images(flags)


def parse_flags() -> argparse.Namespace:
    """Reads the flags and refuses those that do not go together."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    cli.add_model(parser)
    images = "image file, or folder of them"
    add("images", metavar="IMAGE", nargs="*", type=cli.local, help=images)
    output = "picture, or folder of pictures (default: IMAGE with _cam.png)"
    add("--output", type=cli.local_path, help=output)
    classes = "names, wnids or numbers (default: the best class)"
    add("--classes", metavar="NAME,...", type=split_names, default=[], help=classes)
    add(
        "--layer", help="feature map (default: the last that the head sees); earlier ones are finer"
    )
    add("--method", default="gradcam", choices=(*METHODS, "all"), help="all: side by side")
    add("--head", default="main", choices=("main", "aux1", "aux2"), help="whose class is explained")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--branches", action="store_true", help="every branch of every module")
    kinds.add_argument("--heads", action="store_true", help="the main head beside aux1 and aux2")
    report = "a page with all figures"
    kinds.add_argument("--report", type=cli.local_path, metavar="DIR", help=report)
    kinds.add_argument(
        "--features", metavar="LAYER:UNITS", help="draw what excites channels, a branch or a class"
    )
    kinds.add_argument(
        "--circuit", nargs=2, metavar="LAYER:UNITS", help="weights from channels to channels"
    )
    add_feature_flags(parser.add_argument_group("with --features and --circuit"))
    flags = parser.parse_intermixed_args()
    flags.figure = next((name for name in TAKEN if getattr(flags, name, None)), "map")
    if bool(flags.images) == (flags.figure in ("features", "circuit")):
        parser.error("give an IMAGE, or --features, or --circuit, and one of them only.")
    if flags.size < LEAST_SIZE:
        parser.error(f"--size must be {LEAST_SIZE} or more; it is {flags.size}.")
    check_flags(flags, parser)
    return flags


def check_flags(flags: argparse.Namespace, parser: argparse.ArgumentParser):
    """Refuses flags that the figure would ignore, and an --output of the wrong kind."""
    figure = "a map of an IMAGE" if flags.figure == "map" else f"--{flags.figure}"
    for name in dict.fromkeys(chain.from_iterable(TAKEN.values())):
        if getattr(flags, name) != parser.get_default(name) and name not in TAKEN[flags.figure]:
            parser.error(f"{figure} takes no --{name.replace('_', '-')}; leave it out.")
    if flags.method == "all" and flags.heads:
        parser.error("--method all is a figure of its own: leave --heads out.")
    if flags.method in OF_PIXELS and flags.layer:
        parser.error(f"--method {flags.method} is of the pixels: leave --layer out.")
    if len(flags.classes) > 1 and (flags.figure != "map" or flags.method == "all"):
        parser.error("--branches, --heads, --report and --method all take one class.")
    if flags.output and is_folder(flags) == (flags.output.suffix.lower() in PICTURES):
        kind = "a folder" if is_folder(flags) else f"a picture ({', '.join(PICTURES)})"
        parser.error(f"--output must be {kind} here; it is {flags.output}.")


def split_names(text: str) -> list[str]:
    """The type of a flag that takes names."""
    return [name for name in text.split(",") if name.strip()]


def add_feature_flags(group):
    """Adds the flags of feature visualization."""
    add = group.add_argument
    add("--neuron", action="store_true", help="the unit in the middle instead of the whole channel")
    add("--size", type=cli.positive, default=160, help="side of a picture in pixels")
    add("--steps", type=cli.positive, default=200, help="steps of the optimizer")
    add("--diversity", type=cli.positive, default=1, help="different pictures a unit")
    dataset = "name or folder whose images excite the unit most"
    add("--dataset", type=cli.expanded, help=dataset)
    add("--data-dir", type=cli.expanded, help="where TensorFlow Datasets keeps its files")
    add("--seed", type=int, default=0, help="where the optimizer starts")


def explain_images(flags: argparse.Namespace):
    """Explains every image, and goes on after one that cannot be read."""
    from keras_googlenet import models
    from keras_googlenet.data import folders, image_files, pillow_images
    from keras_googlenet.explaining import figures, report
    from keras_googlenet.labels import find_class
    from keras_googlenet.progress_bar import Progress

    files = folders.list_images(flags.images, cli.note, convertible=True)
    loaded = models.load(flags.model, flags.variant)
    subject = figures.Subject(loaded.model, loaded.labels, loaded.image_size)
    classes = [find_class(name, loaded.labels) for name in flags.classes]
    paths = output_paths(flags, files)
    entries, errors, turned, progress = [], [], {}, Progress(len(files))
    for file, path in zip(files, paths, strict=True):
        progress.update(1)
        try:
            photograph = subject.look_at(file, image_files.read_upright(file, turned))
        except UserError as error:
            errors.append(error)
            continue
        best = explain(flags, subject, photograph, classes, path)
        print(f"{best} -> {path}", flush=True)
        entries.append(report.Entry(path.name, file, report.thumbnail(photograph.square), best))
    progress.close()
    pillow_images.note_turned(turned, cli.note)
    if entries and is_folder(flags):
        index = paths[0].parent / INDEX
        write_page(index, report.render_index(f"{flags.model}: {len(entries)} images", entries))
        print(index)
    cli.fail_if(errors)


def is_folder(flags: argparse.Namespace) -> bool:
    """Says whether the result is a folder with an index, or one file."""
    return len(flags.images) > 1 or any(Path(image).is_dir() for image in flags.images)


def output_paths(flags: argparse.Namespace, files: list[str]) -> list[Path]:
    """Says where the explanation of each image goes: to a file of its own, and over no image."""
    kind = "methods" if flags.method == "all" else flags.figure
    ending = {"map": "_cam.png", "report": ".html"}.get(kind, f"_{kind}.png")
    photo = Path(files[0])
    if is_folder(flags) or flags.report:
        folder = flags.report or flags.output or Path("explanations")
        names = distinct_names((Path(file).stem for file in files), ending)
        paths = [folder / name for name in names]
    else:
        paths = [flags.output or photo.with_name(photo.stem + ending)]
    images = {Path(file).resolve() for file in files}
    for path in paths:
        if path.resolve() in images:
            raise UserError(f"{path} is an image to be explained; give another --output.")
    return paths


def distinct_names(stems: Iterable[str], ending: str) -> list[str]:
    """Adds the ending, and a number where the name is taken, be it by other case or the index."""
    taken, names = {INDEX}, []
    for stem in stems:
        numbered = (f"{stem}_{number}{ending}" for number in count(2))
        free = (name for name in chain([stem + ending], numbered) if name.casefold() not in taken)
        names.append(next(free))
        taken.add(names[-1].casefold())
    return names


def explain(flags: argparse.Namespace, subject, photograph, classes: list[int], path: Path) -> str:
    """Writes the explanation of one image and says what its best class is."""
    from keras_googlenet.explaining import figures, report
    from keras_googlenet.explaining.cam import LAST_MODULE

    if flags.head not in photograph.scores:
        heads = ", ".join(photograph.scores)
        raise UserError(f"--head: {flags.model} has no head {flags.head}; it has {heads}.")
    scores = photograph.scores[flags.head]
    best = int(scores.argmax())
    index = (classes or [best])[0]
    layer = flags.layer or f"inception_{LAST_MODULE[flags.head]}_output"
    if flags.report:
        write_page(path, report.render(subject, photograph, index))
    elif flags.branches:
        figures.save(figures.draw_branches(subject, photograph, index, flags.head), path)
    elif flags.heads:
        figures.save(figures.draw_heads(subject, photograph, index, flags.method), path)
    elif flags.method == "all":
        figures.save(figures.draw_methods(subject, photograph, index, layer, flags.head), path)
    else:
        drawn = figures.draw_classes(
            subject, photograph, classes or [best], layer, flags.method, flags.head
        )
        figures.save(drawn, path)
    return f"{subject.name(best)} {scores[best]:.1%}"


def write_page(path: Path, html: str):
    """Writes an HTML file, whole or not at all."""
    with replacing(path) as file:
        file.write_text(html, encoding="utf-8")


def show_features(flags: argparse.Namespace):
    """Draws units by name, or the weights between two sets of them."""
    from keras_googlenet import models
    from keras_googlenet.explaining import figures
    from keras_googlenet.features import circuits, feature_figures, units

    loaded = models.load(flags.model, flags.variant)
    if flags.circuit:
        ends = [units.parse_units(text, loaded.model, loaded.labels) for text in flags.circuit]
        weights = circuits.expanded_weights(loaded.model, *ends)
        named = [list(zip(*draw_units(flags, loaded, end), strict=True)) for end in ends]
        figure = feature_figures.draw_circuit(
            weights, *([(n, p[0]) for n, p in end] for end in named)
        )
        path = flags.output or Path("circuit.png")
    else:
        asked = units.parse_units(flags.features, loaded.model, loaded.labels)
        crops = find_crops(flags, loaded, asked) if flags.dataset else None
        figure = feature_figures.draw_units(*draw_units(flags, loaded, asked), crops)
        path = flags.output or Path("features.png")
    figures.save(figure, path)
    print(path)


def draw_units(flags: argparse.Namespace, loaded, asked):
    """Returns the names of units and their pictures, a few units at a time."""
    import numpy as np

    from keras_googlenet.features import units, visualization

    together = max(1, PICTURES_TOGETHER // flags.diversity)
    channels = asked.channels
    parts = [None]
    if channels is not None:
        parts = [channels[i : i + together] for i in range(0, len(channels), together)]
    drawn = []
    for part in parts:
        cli.note(f"drawing {asked.layer} {part or ''}: {flags.steps} steps")
        drawn.append(
            visualization.visualize(
                loaded.model,
                asked.layer,
                part,
                neuron=flags.neuron,
                size=flags.size,
                steps=flags.steps,
                diversity=flags.diversity,
                seed=flags.seed,
                progress=True,
            )
        )
    names = [units.unit_name(asked, one, loaded.labels) for one in channels or [None]]
    return names, np.concatenate(drawn)


def find_crops(flags: argparse.Namespace, loaded, asked):
    """Returns what in the validation images excites each unit most."""
    from keras_googlenet.data import datasets, pipeline
    from keras_googlenet.data.corrupt_images import CorruptImages
    from keras_googlenet.data.image_files import READ_ERRORS
    from keras_googlenet.features.dataset_examples import top_crops
    from keras_googlenet.progress_bar import Progress

    dataset = datasets.open_dataset(flags.dataset, flags.data_dir)
    cli.note(str(dataset.contents))
    split = dataset.validation
    batches = pipeline.evaluation_batches(split, loaded.image_size, EXAMPLES_TOGETHER)
    progress = Progress(split.size)

    def images():
        try:
            for views, _ in batches:
                yield views.numpy()
                progress.update(len(views))
        except READ_ERRORS as error:
            raise CorruptImages(split, cli.note).refusal() from error
        finally:
            progress.close()

    return top_crops(loaded.model, asked.layer, asked.channels, images())

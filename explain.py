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
from pathlib import Path

from keras_googlenet import cli
from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError

PICTURES_TOGETHER = 16  # that the optimiser moves at a time: about 2 GB at 160 pixels
EXAMPLES_TOGETHER = 64
LEAST_SIZE = 32  # the network halves a picture five times
METHODS = ("gradcam", "gradcam++", "layercam", "scorecam", "saliency", "smoothgrad")


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
    add("images", metavar="IMAGE", nargs="*", help="image file, or folder of them")
    add("--output", type=Path, help="picture, or folder of pictures (default: IMAGE with _cam.png)")
    add("--classes", metavar="NAME,...", help="names, wnids or numbers (default: the best class)")
    add(
        "--layer", help="feature map (default: the last that the head sees); earlier ones are finer"
    )
    add("--method", default="gradcam", choices=(*METHODS, "all"), help="all: side by side")
    add("--head", default="main", choices=("main", "aux1", "aux2"), help="whose class is explained")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--branches", action="store_true", help="every branch of every module")
    kinds.add_argument("--heads", action="store_true", help="the main head beside aux1 and aux2")
    kinds.add_argument("--report", type=Path, metavar="DIR", help="a page with all figures")
    kinds.add_argument(
        "--features", metavar="LAYER:UNITS", help="draw what excites channels, a branch or a class"
    )
    kinds.add_argument(
        "--circuit", nargs=2, metavar="LAYER:UNITS", help="weights from channels to channels"
    )
    add_feature_flags(parser.add_argument_group("with --features and --circuit"))
    flags = parser.parse_args()
    if bool(flags.images) == bool(flags.features or flags.circuit):
        parser.error("give an IMAGE, or --features, or --circuit, and one of them only.")
    if flags.size < LEAST_SIZE:
        parser.error(f"--size must be {LEAST_SIZE} or more; it is {flags.size}.")
    if flags.method == "all" and (flags.branches or flags.heads):
        parser.error("--method all is a figure of its own: leave --branches and --heads out.")
    return flags


def add_feature_flags(group):
    """Adds the flags of feature visualisation."""
    add = group.add_argument
    add("--neuron", action="store_true", help="the unit in the middle instead of the whole channel")
    add("--size", type=cli.positive, default=160, help="side of a picture in pixels")
    add("--steps", type=cli.positive, default=200, help="steps of the optimiser")
    add("--diversity", type=cli.positive, default=1, help="different pictures a unit")
    add("--dataset", help="name or folder whose images excite the unit most")
    add("--data-dir", help="where TensorFlow Datasets keeps its files")
    add("--seed", type=int, default=0, help="where the optimiser starts")


def explain_images(flags: argparse.Namespace):
    """Explains every image, and goes on after one that cannot be read."""
    from keras_googlenet import models
    from keras_googlenet.data import folders, pipeline
    from keras_googlenet.evaluation.progress import Progress
    from keras_googlenet.explaining import page, pictures

    files = folders.list_images(flags.images)
    loaded = models.load(flags.model, flags.variant)
    subject = pictures.Subject(loaded.model, loaded.labels, loaded.image_size)
    classes = chosen_classes(flags, subject)
    paths = output_paths(flags, files)
    entries, errors, progress = [], [], Progress(len(files))
    for file, path in zip(files, paths, strict=True):
        progress.update(1)
        try:
            photograph = subject.look_at(file, pipeline.read_image(file))
        except UserError as error:
            errors.append(error)
            continue
        best = explain(flags, subject, photograph, classes, path)
        print(f"{best} -> {path}", flush=True)
        entries.append(page.Entry(path.name, file, photograph.square, best))
    progress.close()
    if entries and is_folder(flags, files):
        index = paths[0].parent / "index.html"
        write_page(index, page.render_index(f"{flags.model}: {len(entries)} images", entries))
        print(index)
    cli.fail_if(errors)


def is_folder(flags: argparse.Namespace, files: list[str]) -> bool:
    """Says whether the result is a folder with an index, or one file."""
    return len(files) > 1 or Path(flags.images[0]).is_dir()


def output_paths(flags: argparse.Namespace, files: list[str]) -> list[Path]:
    """Says where the explanation of each image goes; equal names get a number."""
    kind = next((name for name in ("branches", "heads") if getattr(flags, name)), "cam")
    kind = "methods" if flags.method == "all" else kind
    ending = ".html" if flags.report else f"_{kind}.png"
    photo = Path(files[0])
    if not is_folder(flags, files) and not flags.report:
        return [flags.output or photo.with_name(photo.stem + ending)]
    folder = flags.report or flags.output or Path("explanations")
    stems = [Path(file).stem for file in files]
    earlier = [stems[:place].count(stem) for place, stem in enumerate(stems)]
    return [
        folder / f"{stem}{f'_{count + 1}' if count else ''}{ending}"
        for stem, count in zip(stems, earlier, strict=True)
    ]


def chosen_classes(flags: argparse.Namespace, subject) -> list[int]:
    """Reads --classes; none means the best class of each image."""
    from keras_googlenet.imagenet import find_class

    names = [name for name in (flags.classes or "").split(",") if name.strip()]
    if len(names) > 1 and (flags.branches or flags.heads or flags.report or flags.method == "all"):
        raise UserError("--branches, --heads, --report and --method all take one class.")
    return [find_class(name, subject.labels) for name in names]


def explain(flags: argparse.Namespace, subject, photograph, classes: list[int], path: Path) -> str:
    """Writes the explanation of one image and says what its best class is."""
    from keras_googlenet.explaining import figures, pictures, report
    from keras_googlenet.explaining.network import LAST_MODULE

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
        figures.save(pictures.draw_branches(subject, photograph, index, flags.head), path)
    elif flags.heads:
        figures.save(pictures.draw_heads(subject, photograph, index, flags.method), path)
    elif flags.method == "all":
        figures.save(pictures.draw_methods(subject, photograph, index, layer, flags.head), path)
    else:
        drawn = pictures.draw_classes(
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
    from keras_googlenet.explaining import atlas, circuits, figures, units

    loaded = models.load(flags.model, flags.variant)
    if flags.circuit:
        ends = [units.parse_units(text, loaded.model, loaded.labels) for text in flags.circuit]
        weights = circuits.expanded_weights(loaded.model, *ends)
        named = [list(zip(*draw_units(flags, loaded, end), strict=True)) for end in ends]
        figure = atlas.draw_circuit(weights, *([(n, p[0]) for n, p in end] for end in named))
        path = flags.output or Path("circuit.png")
    else:
        asked = units.parse_units(flags.features, loaded.model, loaded.labels)
        crops = find_crops(flags, loaded, asked) if flags.dataset else None
        figure = atlas.draw_units(*draw_units(flags, loaded, asked), crops)
        path = flags.output or Path("features.png")
    figures.save(figure, path)
    print(path)


def draw_units(flags: argparse.Namespace, loaded, asked):
    """Returns the names of units and their pictures, a few units at a time."""
    import numpy as np

    from keras_googlenet.explaining import features, units

    together = max(1, PICTURES_TOGETHER // flags.diversity)
    channels = asked.channels
    parts = [None]
    if channels is not None:
        parts = [channels[i : i + together] for i in range(0, len(channels), together)]
    drawn = []
    for part in parts:
        cli.note(f"drawing {asked.layer} {part or ''}: {flags.steps} steps")
        drawn.append(
            features.visualise(
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
    from keras_googlenet.explaining.exciting import top_crops

    split = datasets.open_dataset(flags.dataset, flags.data_dir).validation
    cli.note(f"looking through {split.size} images of {flags.dataset}")
    batches = pipeline.evaluation_batches(split, loaded.image_size, EXAMPLES_TOGETHER)
    images = (views.numpy() for views, _ in batches)
    return top_crops(loaded.model, asked.layer, asked.channels, images)


if __name__ == "__main__":
    cli.run(main)

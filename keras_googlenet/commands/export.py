"""Exports a network as files for serving.

    python export.py runs/shapes serving/googlenet
    python export.py runs/shapes serving/googlenet --precision bfloat16
    python export.py runs/shapes shapes.tflite --quantize int8
    python export.py googlenet.keras googlenet.onnx --calibration photos

A SavedModel is written to a new version directory in the folder OUTPUT, next to models.config and
compose.yaml for TensorFlow Serving. Every export is compared with the network, on images of
--calibration if given, and nothing is written if they differ. MODEL_CARD.md in the version
directory, or <file>.MODEL_CARD.md beside a file, describes it.
"""

import argparse
from pathlib import Path

from keras_googlenet import cli
from keras_googlenet.errors import UserError
from keras_googlenet.exporting.formats import FORMATS

CALIBRATION_IMAGES = 200  # at most
SUFFIXES = {export.suffix: kind for kind, export in FORMATS.items() if export.suffix}


def main():
    """Reads the flags and does what the docstring above says."""
    flags = parse_flags()
    cli.start_tensorflow()

    from keras_googlenet import exporting, models
    from keras_googlenet.exporting import litert, model_card, serving_files, serving_network

    loaded = models.load(flags.model, flags.variant)
    serving_network.exported_network(loaded.model)  # refuses before the images are read
    export = getattr(exporting, f"export_{flags.format}")
    options = {option.name: getattr(flags, option.name) for option in FORMATS[flags.format].options}
    samples = calibration_images(flags, loaded)
    path, agreement = export(loaded.model, flags.output, loaded.labels, samples=samples, **options)
    print(agreement)
    if flags.quantize == "int8":
        counts = litert.operators(path).most_common()
        print("operators:", ", ".join(f"{name} {count}" for name, count in counts))
    if flags.format == "saved_model":
        for file in serving_files.write_serving_files(flags.output, flags.batching):
            cli.note(f"{file} has been edited; it is left as it is")
    published, command = flags.model == models.PUBLISHED, _train_command(loaded.workdir)
    card = model_card.write_card(loaded, published, command, flags.format, path, options, agreement)
    print(f"model card: {card}")
    print(path)


def parse_flags() -> argparse.Namespace:
    """Reads the flags and refuses those that exclude each other."""
    parser = cli.parser(__doc__)
    cli.add_model(parser)
    output = f"folder for the versions of a SavedModel, or {', '.join(SUFFIXES)} file"
    parser.add_argument("output", metavar="OUTPUT", type=cli.local_path, help=output)
    kind = "what to write; its suffix is added to OUTPUT (default: by OUTPUT's suffix)"
    parser.add_argument("--format", choices=FORMATS, help=kind)
    calibration = "images, as folder or data set, to compare on and to calibrate int8 with"
    parser.add_argument(
        "--calibration", metavar="FOLDER|DATASET", type=cli.expanded, help=calibration
    )
    data_dir = "where TensorFlow Datasets keeps its files"
    parser.add_argument("--data-dir", type=cli.expanded, help=data_dir)
    add_format_flags(parser)
    flags = parser.parse_args()
    try:
        flags.format, flags.output = format_and_output(flags.format, flags.output)
        check_format_flags(flags)
    except UserError as error:
        parser.error(str(error))
    return flags


def add_format_flags(parser: argparse.ArgumentParser):
    """Adds the options in the table of formats, and `--batching`."""
    for kind, export in FORMATS.items():
        group = parser.add_argument_group(f"{export.title} only") if export.options else parser
        for option in export.options:
            settings = {"choices": option.values, "default": option.values[0], "help": option.help}
            group.add_argument(f"--{option.name}", **settings)
        if kind == "saved_model":
            batching = (
                "let the server merge requests, as batching_parameters.txt says; one corrupt image "
                "then fails all requests of its batch (default: as before, at first off)"
            )
            group.add_argument("--batching", action=argparse.BooleanOptionalAction, help=batching)


def check_format_flags(flags: argparse.Namespace):
    """Raises `UserError` for options of another format than the one to write."""
    default_of = {(kind, o.name): o.values[0] for kind in FORMATS for o in FORMATS[kind].options}
    for (kind, name), default in (default_of | {("saved_model", "batching"): None}).items():
        if getattr(flags, name) != default and flags.format != kind:
            raise UserError(f"--{name} is for --format {kind}, not {flags.format}; leave it out.")
    if flags.io != "float32" and flags.quantize != "int8":
        raise UserError(f"--io {flags.io} needs --quantize int8; give it too.")


def format_and_output(kind: str | None, output: Path) -> tuple[str, Path]:
    """Returns the format to write, and the output with its suffix.

    Args:
        kind: The format; `None` to decide by the suffix of `output`.
        output: File, with or without the suffix of the format, or folder.

    Raises:
        UserError: If the suffix has to decide and belongs to no format.
    """
    suffix = output.suffix.lower()
    if kind is None and suffix[1:].isalpha() and suffix not in SUFFIXES:  # a folder may be net.v2
        raise UserError(
            f"{output} has the suffix of no format ({', '.join(SUFFIXES)}); give another name, or "
            "--format saved_model for a folder of this name."
        )
    kind = kind or SUFFIXES.get(suffix, "saved_model")
    if kind == "saved_model":
        return kind, output
    if suffix == FORMATS[kind].suffix:
        return kind, output.with_suffix(suffix)
    return kind, output.with_name(output.name + FORMATS[kind].suffix)


def calibration_images(flags: argparse.Namespace, loaded):
    """Reads images of --calibration, or for int8 of the data set that the run was trained on."""
    from keras_googlenet.data import samples
    from keras_googlenet.evaluation.evaluation_set import dataset_for, runs_of
    from keras_googlenet.exporting.agreement import SampleImages

    source = flags.calibration
    if source is None and flags.quantize != "int8":
        return None
    if source is None and loaded.recipe is None:
        raise UserError("--quantize int8 needs --calibration with images like those to come.")
    is_folder = source is not None and Path(source).is_dir()
    dataset = samples.open_images(source) if is_folder else None
    dataset = dataset or dataset_for(runs_of([loaded]), source, flags.data_dir)
    cli.note(str(dataset.contents))
    images, classes = samples.read_sample(
        dataset.validation, dataset.labels, loaded.labels, loaded.image_size, CALIBRATION_IMAGES
    )
    part = "half of " if flags.quantize == "int8" else ""
    origin = f"{part}{len(images)} images of {source or loaded.recipe['dataset']}"
    return SampleImages(images, classes, origin)


def _train_command(workdir: Path | None) -> str | None:
    """Returns the command that trains the network of a run directory again."""
    from keras_googlenet.training.recipe import Recipe

    try:
        return Recipe.load(workdir).command() if workdir else None
    except UserError:  # a recipe of another version of this package
        return None

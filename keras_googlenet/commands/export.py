"""Writes a network in a form that serves it: SavedModel, LiteRT, ONNX or OpenVINO.

    python export.py runs/shapes serving/googlenet
    python export.py runs/shapes serving/googlenet --precision bfloat16
    python export.py runs/shapes googlenet.tflite --quantize int8
    python export.py googlenet.keras googlenet.onnx --calibration photos

A SavedModel goes into a new version directory below OUTPUT, beside models.config and compose.yaml
for the server. The export is compared with the network on the spot, on images of --calibration if
given, and refused if they differ.
"""

import argparse
from pathlib import Path

from keras_googlenet import cli
from keras_googlenet.errors import UserError

FORMATS = {".tflite": "litert", ".onnx": "onnx", ".xml": "openvino"}  # else a SavedModel
PICTURES = 200  # images of --calibration that are used


def main():
    """Reads the flags and does what the docstring above says."""
    flags = parse_flags()
    cli.start_tensorflow()

    from keras_googlenet import exporting, models
    from keras_googlenet.exporting import litert, serving_files, serving_network

    loaded = models.load(flags.model, flags.variant)
    serving_network.exported_network(loaded.model)
    export = getattr(exporting, f"export_{flags.format}")
    options = {"pictures": calibration_images(flags, loaded)}
    if flags.format == "saved_model":
        options["precision"] = flags.precision
    if flags.format == "litert":
        options |= {"quantize": flags.quantize, "io": flags.io}
    path, agreement = export(loaded.model, flags.output, loaded.labels, **options)
    print(agreement)
    if flags.quantize == "int8":
        counts = litert.operators(path).most_common()
        print("operators:", ", ".join(f"{name} {count}" for name, count in counts))
    if flags.format == "saved_model":
        for file in serving_files.write_serving_files(flags.output, flags.batching):
            cli.note(f"{file} has been edited; it is left as it is")
    print(path)


def parse_flags() -> argparse.Namespace:
    """Reads the flags and refuses those that do not go together."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    cli.add_model(parser)
    output = "folder for versions, or .tflite, .onnx or .xml file"
    add("output", metavar="OUTPUT", type=cli.local_path, help=output)
    formats = ("saved_model", *FORMATS.values())
    kind = "what to write; OUTPUT gets its suffix (default: by OUTPUT's suffix)"
    add("--format", choices=formats, help=kind)
    precision = "what the convolutions of a SavedModel compute in"
    add("--precision", choices=("float32", "bfloat16"), default="float32", help=precision)
    kinds = ("none", "float16", "dynamic", "int8")
    add("--quantize", choices=kinds, default="none", help="weights, or all, of a LiteRT file")
    io = "type of the input and output of an int8 LiteRT network"
    add("--io", choices=("float32", "uint8", "int8"), default="float32", help=io)
    calibration = "folder or data set to compare on and to find int8's ranges with"
    add("--calibration", metavar="FOLDER|DATASET", type=cli.expanded, help=calibration)
    add("--data-dir", type=cli.expanded, help="where TensorFlow Datasets keeps its files")
    batching = (
        "of a SavedModel: let the server merge requests, by batching_parameters.txt; one bad "
        "picture then fails the others of its batch (default: as it was, at first off)"
    )
    add("--batching", action=argparse.BooleanOptionalAction, help=batching)
    flags = parser.parse_args()
    try:
        flags.format, flags.output = format_and_output(flags.format, flags.output)
    except UserError as error:
        parser.error(str(error))
    for flag, default, only in (
        ("precision", "float32", "saved_model"),
        ("quantize", "none", "litert"),
        ("io", "float32", "litert"),
        ("batching", None, "saved_model"),
    ):
        if getattr(flags, flag) != default and flags.format != only:
            parser.error(f"--{flag} is for --format {only}, not {flags.format}; leave it out.")
    if flags.io != "float32" and flags.quantize != "int8":
        parser.error(f"--io {flags.io} needs --quantize int8; give it too.")
    return flags


def format_and_output(kind: str | None, output: Path) -> tuple[str, Path]:
    """Finds what to write, and its file with the suffix of that format, or its folder.

    Args:
        kind: The format, if the user said it.
        output: Where to write, as the user said it.

    Raises:
        UserError: If the suffix alone is to tell the format and is of none.
    """
    suffix = output.suffix.lower()
    if kind is None and suffix[1:].isalpha() and suffix not in FORMATS:  # a folder may be net.v2
        raise UserError(
            f"{output} has the suffix of no format ({', '.join(FORMATS)}); give another name, or "
            "--format saved_model for a folder of this name."
        )
    kind = kind or FORMATS.get(suffix, "saved_model")
    if kind == "saved_model":
        return kind, output
    if FORMATS.get(suffix) == kind:
        return kind, output.with_suffix(suffix)
    (suffix,) = (suffix for suffix, found in FORMATS.items() if found == kind)
    return kind, output.with_name(output.name + suffix)


def calibration_images(flags: argparse.Namespace, loaded):
    """Reads pictures of --calibration, or for int8 of the data set that the run was trained on."""
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
        dataset.validation, dataset.labels, loaded.labels, loaded.image_size, PICTURES
    )
    name = source or loaded.recipe["dataset"]
    if flags.quantize == "int8":
        return SampleImages(images, classes, f"half of {len(images)} images of {name}")
    return SampleImages(images, classes, f"{len(images)} images of {name}")

"""Converts weights of another framework, published or your own, into a Keras model.

    python convert.py bvlc_googlenet.caffemodel googlenet.keras --verify photo.jpg
    python convert.py checkpoint.pth cars.keras --labels cars.txt

SOURCE is a Caffe model, a PyTorch state dictionary or a checkpoint with one (.pth, .safetensors), a
TensorFlow checkpoint or its folder, Google's frozen graph, or an archive with one of these; its
content decides which. Class names are written beside OUTPUT.
"""

import argparse
import collections
import textwrap
from pathlib import Path

from keras_googlenet import cli
from keras_googlenet.errors import UserError


def main():
    """Converts SOURCE and prints what was copied."""
    flags = parse_flags()
    output = Path(flags.output)
    if output.suffix != ".keras":
        raise UserError(f"OUTPUT must end in .keras; it is {output}.")
    cli.start_tensorflow()

    from keras_googlenet.data import image_files
    from keras_googlenet.labels import read_labels
    from keras_googlenet.weights import conversion, published

    image = image_files.read_image(flags.verify) if flags.verify else None
    labels = read_labels(flags.labels) if flags.labels else None
    converted = conversion.convert_file(
        flags.source, flags.variant, classifier=flags.classifier, activation=flags.activation
    )
    check_labels(labels, converted.model, flags.labels)
    print(table(converted))
    print(published.provenance(converted.table.variant, Path(flags.source)))
    conversion.save(converted.model, output, labels)
    if image is not None:
        print(verify(output, image, flags.verify))
    print(output)


def parse_flags() -> argparse.Namespace:
    """Parses the command line."""
    parser = cli.parser(__doc__)
    parser.add_argument("source", metavar="SOURCE", type=cli.local, help="file of weights")
    parser.add_argument(
        "output", metavar="OUTPUT", type=cli.local_path, help=".keras file to write"
    )
    parser.add_argument("--variant", help="stop if SOURCE holds another variant")
    parser.add_argument(
        "--classifier", metavar="NAME", help="name of the classifier in SOURCE, if it has several"
    )
    parser.add_argument(
        "--activation",
        default="relu",
        help="activation between the linear layers of a classifier, which weights do not contain",
    )
    parser.add_argument(
        "--labels",
        metavar="FILE",
        type=cli.local_path,
        help="text file with one class name per line",
    )
    parser.add_argument(
        "--verify", metavar="IMAGE", type=cli.local, help="image to classify with the new model"
    )
    return parser.parse_args()


def check_labels(labels: list[str] | None, model, file: Path):
    """Raises `UserError` if the number of names is not that of the classes."""
    classes = model.outputs[0].shape[-1]
    if labels is not None and len(labels) != classes:
        raise UserError(
            f"{file} names {len(labels)} classes but the weights have {classes}; give a text file "
            "with one name per line, in the order of the outputs."
        )


def table(converted) -> str:
    """Formats what was copied and what was not, in lines of at most 100 characters."""
    model = converted.model
    width = min(48, max(len(row.source) for row in converted.ported))
    arrays = [
        f"{row.layer:26} {_end(row.source, width):{width}} {'x'.join(map(str, row.shape)):>13} "
        f"{row.norm:10.4f}"
        for row in converted.ported
    ]
    lines = [
        f"{converted.format} of {converted.table.name}: variant {converted.table.variant}, "
        f"{model.outputs[0].shape[-1]} classes, {model.count_params():,} parameters",
        f"{'layer':26} {'in the file':{width}} {'shape':>13} {'norm':>10}",
        *arrays,
        f"absent: {', '.join(converted.absent) or 'nothing'}",
        textwrap.fill(f"unused: {summary(converted.unused)}", 100, subsequent_indent="  "),
        *(textwrap.fill(f"note: {note}", 100, subsequent_indent="  ") for note in converted.notes),
    ]
    return "\n".join(lines)


def _end(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"


def summary(names: list[str]) -> str:
    """Lists names; if more than three have the same ending, their number.

    Example:
    >>> summary(["step", "a.bn.count", "b.bn.count", "c.bn.count", "d.bn.count"])
    '4 arrays …count, step'
    """
    by_ending = collections.defaultdict(list)
    for name in names:
        by_ending[name.replace("/", ".").rpartition(".")[2]].append(name)
    groups = by_ending.items()
    shown = [f"{len(group)} arrays …{ending}" for ending, group in groups if len(group) > 3]
    shown += [name for _, group in groups if len(group) <= 3 for name in group]
    return ", ".join(shown[:20]) + (", …" if len(shown) > 20 else "") or "nothing"


def verify(model_file: Path, image, name: str) -> str:
    """Returns the predictions of the new file for an image."""
    from keras_googlenet import imagenet, models
    from keras_googlenet.data import preprocessing

    loaded = models.load(model_file)
    crop = preprocessing.evaluation_crop(image, loaded.image_size).numpy()
    best = imagenet.decode_predictions(loaded.predict(crop[None]), labels=loaded.labels)[0]
    return "\n".join([name, *(f"{row.score:8.2%}  {row.name}" for row in best)])

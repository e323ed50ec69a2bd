"""Turns weights of another framework, published or your own, into a Keras model.

    python convert.py bvlc_googlenet.caffemodel googlenet.keras --verify photo.jpg
    python convert.py checkpoint.pth cars.keras --labels cars.txt

SOURCE is a Caffe model, a PyTorch state dictionary or a checkpoint that holds one (.pth,
.safetensors), a TensorFlow checkpoint or its folder, Google's frozen graph, or an archive with one
of these; the content decides which. Class names go beside OUTPUT.
"""

import argparse
import collections
import textwrap
from pathlib import Path

from keras_googlenet import cli
from keras_googlenet.errors import UserError


def main():
    """Reads the flags and does what the docstring above says."""
    flags = parse_flags()
    output = Path(flags.output)
    if output.suffix != ".keras":
        raise UserError(f"OUTPUT must end in .keras; it is {output}.")
    cli.start_tensorflow()

    from keras_googlenet import labels
    from keras_googlenet.data import image_files
    from keras_googlenet.weights import conversion, published

    image = image_files.read_image(flags.verify) if flags.verify else None
    labels = labels.read_labels(flags.labels) if flags.labels else None
    converted = conversion.convert_file(
        flags.source, flags.variant, classifier=flags.classifier, activation=flags.activation
    )
    check_labels(labels, converted.model, flags.labels)
    print(as_table(converted))
    print(published.provenance(converted.table.variant, Path(flags.source)))
    conversion.save(converted.model, output, labels)
    if image is not None:
        print(verify(output, image, flags.verify))
    print(output)


def parse_flags() -> argparse.Namespace:
    """Returns what the command line says."""
    parser = cli.parser(__doc__)
    parser.add_argument("source", metavar="SOURCE", type=cli.local, help="weights to read")
    parser.add_argument(
        "output", metavar="OUTPUT", type=cli.local_path, help=".keras file to write"
    )
    parser.add_argument("--variant", help="refuse a file of any other variant")
    parser.add_argument(
        "--classifier", metavar="NAME", help="name in SOURCE of its classifier, if several fit"
    )
    parser.add_argument(
        "--activation",
        default="relu",
        help="between the linear layers of a classifier of several, which weights do not say",
    )
    parser.add_argument(
        "--labels", metavar="FILE", type=cli.local_path, help="text with a class name a line"
    )
    shown = "name what is in an image"
    parser.add_argument("--verify", metavar="IMAGE", type=cli.local, help=shown)
    return parser.parse_args()


def check_labels(labels: list[str] | None, model, file: Path):
    """Refuses names of another number of classes."""
    classes = model.outputs[0].shape[-1]
    if labels is not None and len(labels) != classes:
        raise UserError(
            f"{file} names {len(labels)} classes but the weights have {classes}; give a text with "
            "one name a line, in the order of the outputs."
        )


def as_table(converted) -> str:
    """Lays out what went where, and what did not, in lines of at most 100 characters."""
    model = converted.model
    place = min(48, max(len(row.source) for row in converted.ported))  # characters of a name
    arrays = [
        f"{row.layer:26} {_end(row.source, place):{place}} {'x'.join(map(str, row.shape)):>13} "
        f"{row.norm:10.4f}"
        for row in converted.ported
    ]
    lines = [
        f"{converted.format} of {converted.table.name}: variant {converted.table.variant}, "
        f"{model.outputs[0].shape[-1]} classes, {model.count_params():,} parameters",
        f"{'layer':26} {'in the file':{place}} {'shape':>13} {'norm':>10}",
        *arrays,
        f"absent: {', '.join(converted.absent) or 'nothing'}",
        textwrap.fill(f"unused: {summary(converted.unused)}", 100, subsequent_indent="  "),
        *(textwrap.fill(f"note: {note}", 100, subsequent_indent="  ") for note in converted.notes),
    ]
    return "\n".join(lines)


def _end(text: str, most: int) -> str:
    return text if len(text) <= most else f"…{text[1 - most :]}"


def summary(names: list[str]) -> str:
    """Lists names; of many that end alike, their number.

    Example:
    >>> summary(["step", "a.bn.count", "b.bn.count", "c.bn.count", "d.bn.count"])
    '4 arrays …count, step'
    """
    groups = collections.defaultdict(list)
    for name in names:
        groups[name.replace("/", ".").rpartition(".")[2]].append(name)
    few = 3
    shown = [f"{len(found)} arrays …{end}" for end, found in groups.items() if len(found) > few]
    shown += [name for found in groups.values() if len(found) <= few for name in found]
    return ", ".join(shown[:20]) + (", …" if len(shown) > 20 else "") or "nothing"


def verify(model_file: Path, image, name: str) -> str:
    """Names what the file that was just written sees in a picture."""
    from keras_googlenet import imagenet, models
    from keras_googlenet.data import preprocessing

    loaded = models.load(model_file)
    view = preprocessing.evaluation_crop(image, loaded.image_size).numpy()
    best = imagenet.decode_predictions(loaded.predict(view[None]), labels=loaded.labels)[0]
    return "\n".join([name, *(f"{row.score:8.2%}  {row.name}" for row in best)])

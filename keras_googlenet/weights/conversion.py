"""From a published file to a network of ours, and the account of how it went."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import keras

from keras_googlenet.atomic import replacing
from keras_googlenet.errors import UserError
from keras_googlenet.googlenet import AUX_TAPS, GoogLeNet
from keras_googlenet.imagenet import default_labels, labels_path, write_labels
from keras_googlenet.weights import recognition
from keras_googlenet.weights.porting import Ported, port
from keras_googlenet.weights.sources import Contents, Source

MOST_CLASSES = 4000  # of one head; keeps a conversion below 1 GiB of memory


class Conversion(NamedTuple):
    """A network that was filled from a file.

    Attributes:
        model: Three outputs where the file has the heads, else one.
        source: The porting table that was used.
        ported: A row for each array that found its place.
        absent: Heads that the file does not have.
        unused: Names of arrays that no layer wanted.
    """

    model: keras.Model
    source: Source
    ported: list[Ported]
    absent: list[str]
    unused: list[str]


def convert(source: str | Path, variant: str | None = None) -> keras.Model:
    """Turns a published file into a network.

    Args:
        source: A Caffe model, a torchvision `.pth` or `.safetensors`, a TF-slim checkpoint or its
            tar.gz, Google's frozen graph or its zip. The content decides which, not the name.
        variant: The variant to expect; any, if not given.

    Returns:
        A GoogLeNet with the outputs `[main, aux1, aux2]` where the file has the auxiliary heads,
        otherwise one output, `(n, classes)` float32.

    Raises:
        UserError: If the file is none of these, is damaged, or holds another variant.
    """
    return convert_file(source, variant).model


def convert_file(source: str | Path, variant: str | None = None) -> Conversion:
    """Does what `convert` does, and says how it went."""
    path = Path(source).expanduser()
    table, contents = read_source(path)
    if variant not in (None, table.variant):
        raise UserError(
            f"{path} is a {table.format} and holds the variant {table.variant}, not {variant}; "
            "leave the variant out."
        )
    try:
        return _build(table, contents)
    except UserError as error:
        raise UserError(f"{path}, taken for a {table.format}: {error}") from error


def read_source(path: Path) -> tuple[Source, Contents]:
    """Reads a file by the reader that its content asks for.

    Args:
        path: A published file.

    Returns:
        The porting table and what stands in the file.

    Raises:
        UserError: If it is no weights file or damaged.
    """
    reader = recognition.reader_of(path)
    try:
        return reader.SOURCE, reader.read(path)
    except UserError as error:
        raise UserError(f"{path}, taken for a {reader.SOURCE.format}: {error}") from error


def _build(source: Source, contents: Contents) -> Conversion:
    arrays = contents.arrays
    present = [head for head in AUX_TAPS if _has(arrays, source, head)]
    if len(present) == 1:
        raise UserError(f"of the auxiliary heads it has {present[0]} only; the file is damaged.")
    model = GoogLeNet(
        variant=source.variant, classes=_classes(arrays, source), aux_heads=bool(present)
    )
    ported = port(model, contents, source)
    used = {row.source for row in ported}
    return Conversion(
        model=model,
        source=source,
        ported=ported,
        absent=[head for head in AUX_TAPS if head not in present],
        unused=sorted(set(arrays) - used),
    )


def _has(arrays: Mapping, source: Source, head: str) -> bool:
    """Whether anything of an auxiliary head stands in the file."""
    names = [name for layer, name in source.layers.items() if layer.startswith(head)]
    return any(array.startswith(name) for array in arrays for name in names)


def _classes(arrays: Mapping, source: Source) -> int:
    name = source.layers["main"] + source.parts["Dense"]["bias"]
    if name not in arrays:
        raise UserError(f"{name} is missing, the classifier; is it another network?")
    classes = arrays[name].size
    if not 1 < classes <= MOST_CLASSES:
        raise UserError(f"{name} has {classes} numbers, one a class; the file is damaged.")
    return classes


def save(model: keras.Model, path: Path):
    """Writes a network and, beside it, the names of its classes.

    Args:
        model: A GoogLeNet.
        path: `.keras` file; the names go to `<name>.labels.txt`.
    """
    labels = default_labels(model.outputs[0].shape[-1])
    with replacing(path) as model_file:
        model.save(model_file)
        with replacing(labels_path(path)) as labels_file:
            write_labels(labels_file, labels)

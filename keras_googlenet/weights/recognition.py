"""Which publisher's format a file has: from its content, whatever its name."""

import itertools
from pathlib import Path
from types import ModuleType

from keras_googlenet.errors import UserError
from keras_googlenet.weights import archives, caffe, google, slim, torchvision
from keras_googlenet.weights.sources import mapped
from keras_googlenet.weights.wire import MOST_NAME, Wire

SOURCES = {reader.SOURCE.variant: reader.SOURCE for reader in (caffe, torchvision, slim, google)}
TABLE_MAGIC = bytes.fromhex("57fb808b247547db")  # the last bytes of a TensorFlow checkpoint
FIELDS_TO_LOOK_AT = 20
EXPECTED = (
    "give a Caffe model, a torchvision .pth or .safetensors, a TF-slim checkpoint or its tar.gz, "
    "or Google's frozen graph or its zip"
)


def reader_of(path: Path) -> ModuleType:
    """Finds the reader for a file.

    Args:
        path: A file, or the prefix of a checkpoint in several files.

    Returns:
        `caffe`, `torchvision`, `slim` or `google`.

    Raises:
        UserError: If it is none of these.
    """
    if not path.is_file():
        if Path(f"{path}.index").is_file():
            return slim
        raise UserError(f"there is no file {path}; {EXPECTED}.")
    try:
        reader = _reader_of_file(path)
    except UserError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if reader is None:
        raise UserError(f"{path} holds no weights that are known here; {EXPECTED}.")
    return reader


def _reader_of_file(path: Path) -> ModuleType | None:
    if slim.is_gzip(path):
        return slim
    if archives.is_zip(path):
        return _reader_of_zip(archives.zip_names(path))
    with mapped(path) as content:
        if bytes(content[-8:]) == TABLE_MAGIC:
            return slim
        if torchvision.is_old_form(content):
            return torchvision
        if torchvision.is_safetensors(content) and b'"dtype"' in bytes(content[8:2000]):
            return torchvision
        return _reader_of_messages(content)


def _reader_of_zip(names: list[str]) -> ModuleType | None:
    if any(name.endswith("data.pkl") for name in names):
        return torchvision
    if any(name.endswith(".pb") for name in names):
        return google
    return None


def _reader_of_messages(content: memoryview) -> ModuleType | None:
    """Tells a NetParameter from a GraphDef by the first fields.

    Field 1 is the network's name in the one, and a node, which begins with a field, in the other.
    """
    wire, named = Wire(content), False
    try:
        for number, value in itertools.islice(wire.fields(), FIELDS_TO_LOOK_AT):
            if isinstance(value, int):
                if number in caffe.INTEGERS:
                    continue
                return None
            if number in caffe.LAYER_FORMS:
                return caffe
            start = bytes(wire.bytes(value)[:MOST_NAME])
            if number == 1 and start[:1] == b"\n":
                return google
            named = named or (number == 1 and start.isascii() and start.decode().isprintable())
    except UserError:  # what was seen before the damage decides; the reader will name the place
        pass
    return caffe if named else None

"""Recognizes the format of a weight file from its content, and chooses the reader."""

import bz2
import functools
import gzip
import itertools
import lzma
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from keras_googlenet.errors import UserError
from keras_googlenet.weight_files import caffe_files, tensorflow_files, torch_files
from keras_googlenet.weight_files.arrays import MIB, MOST_PARSED, MOST_UNPACKED, Contents

HEAD = 4096  # bytes that decide
CAFFE_HEAD = re.compile(rb"\n[\x00-\x7f][ -~]*(\x12|\xa2\x06|[\x18-\x28])|\x12|\xa2\x06")
GRAPH_HEAD = re.compile(rb"\n[\x80-\xff]*[\x00-\x7f]\n")  # a node, which starts with its name
TAR_MAGIC = b"ustar"  # at byte 257
PACKED = {b"\x1f\x8b": gzip, b"BZh": bz2, b"\xfd7zXZ": lzma}
INSIDE = "inside"  # folder for an archive in an archive
MOST_MEMBERS = 10_000  # of an archive or a folder
WEIGHT_SUFFIXES = tuple(
    ".caffemodel .h5 .pth .pt .th .pth.tar .pt.tar .bin .ckpt .safetensors .pb".split()
)
OTHER_SUFFIXES = (
    ".txt .md .json .yaml .yml .prototxt .solverstate .binaryproto .py .csv .log .png .jpg .jpeg "
    ".html"
).split()
EXPECTED = (
    "give a Caffe model, a PyTorch state dictionary (.pth or .safetensors), a TensorFlow "
    "checkpoint, or a frozen graph"
)
SAVE = "torch.save(model.state_dict(), 'weights.pth')"
SOURCE = "give the weights that it was made from"
TEXTS = {  # start of a text file -> what it is and what to do
    rb"version https://git-lfs": "a pointer of Git LFS to a file; run `git lfs pull` beside it",
    rb"\s*<(!doctype|html|\?xml)": "a web page, not weights; download the file itself",
    rb"(?s).*?\b(layers?|input_dim|input_shape|input_param|convolution_param)\s*[:{]": "a "
    "prototxt, which describes a network and holds no weights; give the .caffemodel beside it",
    rb"\s*[{\[]": f"JSON, not weights; {EXPECTED}",
}
OTHERS = {  # start of a binary file -> the same
    rb"....TFL3": f"a LiteRT file, which cannot be converted back; {SOURCE}",
    rb"\x93NUMPY": f"a NumPy array; {EXPECTED}",
    rb"\xff\xd8|\x89PNG|GIF8|RIFF|BM": f"an image; {EXPECTED}",
    rb"%PDF": f"a PDF; {EXPECTED}",
    rb"MATLAB": f"a MATLAB file; {EXPECTED}",
    rb"7z\xbc\xaf|Rar!": "an archive that Python cannot unpack; unpack it and give the file inside",
    rb"\x80[\x02-\x05]": f"a pickle, but not of torch.save; where it was made, run {SAVE}",
    # an ONNX file: version, then producer, graph or opset
    rb"\x08[\x03-\x20][\x12\x3a\x42]": f"an ONNX file, which has no layer names; {SOURCE}",
}


class Format(NamedTuple):
    """The format of a file, and the function that opens it."""

    name: str
    open: Callable[[], Contents]
    needs_tensorflow: bool = False


def recognize(path: Path, scratch: Path) -> Format:
    """Finds the reader for a file.

    Args:
        path: A file, the prefix of a checkpoint, or a folder with weights in it.
        scratch: An empty folder for the contents of an archive.

    Raises:
        UserError: If there is no reader; it says what the file is instead, if that is known.
    """
    prefix = tensorflow_files.prefix_of(path)
    if prefix is not None:
        opened = functools.partial(tensorflow_files.open_checkpoint, prefix)
        return Format("TensorFlow checkpoint", opened, needs_tensorflow=True)
    if path.is_dir():
        return recognize(_only_weights(path), scratch)
    if path.suffix == ".solverstate":
        raise UserError("it is the state of Caffe's solver; give the .caffemodel beside it.")
    if not path.is_file():
        raise UserError(f"there is no such file; {EXPECTED}.")
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head:
        raise UserError("the file is empty; download it again.")
    if head.startswith(torch_files.OLD_FORM):
        return Format("PyTorch file", functools.partial(torch_files.open_old_form, path))
    if head.startswith(b"\x89HDF"):
        return Format("HDF5 file", functools.partial(caffe_files.open_hdf5, path))
    if head[8:9] == b"{" and b'"' in head:
        return Format("safetensors file", functools.partial(torch_files.open_safetensors, path))
    if head.startswith(b"PK\x03\x04"):
        return _recognize_zip(path, scratch)
    if head.startswith(tuple(PACKED)) or head[257:262] == TAR_MAGIC:
        _unpack(path, scratch, head)
        return _recognize_inside(scratch)
    _refuse_others(head)
    return _recognize_message(path, head)


def _recognize_zip(path: Path, scratch: Path) -> Format:
    archive = zipfile.ZipFile(path)
    names = {member.filename.split("/")[-1] for member in archive.infolist()}
    if "constants.pkl" in names:
        raise UserError(
            "it is a TorchScript program, not its weights; load it with torch.jit.load and run "
            f"{SAVE}."
        )
    if "data.pkl" in names:
        return Format("PyTorch file", functools.partial(torch_files.open_zip, archive))
    if all(name.endswith(".npy") for name in names):
        raise UserError(f"it is an archive of NumPy (.npz); {EXPECTED}.")
    if "model.weights.h5" in names:
        raise UserError("it is already a .keras file, which all scripts accept.")
    members = [member for member in archive.infolist() if not member.is_dir()]
    _check_size(len(members), sum(member.file_size for member in members))
    for member in members:
        archive.extract(member, scratch)
    return _recognize_inside(scratch)


def _unpack(path: Path, folder: Path, head: bytes):
    """Unpacks the files of a tar archive, or a single compressed file."""
    count = size = 0
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                count, size = count + 1, size + member.size
                _check_size(count, size)
                if member.isfile():
                    archive.extract(member, folder, filter="data")
        return
    except tarfile.ReadError:
        if count:
            raise
    opened = next(module.open for magic, module in PACKED.items() if head.startswith(magic))
    with opened(path) as source, open(folder / "unpacked", "wb") as target:
        while piece := source.read(MIB):
            size += len(piece)
            _check_size(1, size)
            target.write(piece)


def _check_size(members: int, size: int):
    if size > MOST_UNPACKED:
        raise UserError(f"it unpacks to more than {MOST_UNPACKED // MIB} MiB; is it a bomb?")
    if members > MOST_MEMBERS:
        raise UserError(f"it holds over {MOST_MEMBERS} files; give the one with the weights.")


def _recognize_inside(folder: Path) -> Format:
    weights = _only_weights(folder)
    if folder.name == INSIDE:
        raise UserError("it is an archive in an archive; unpack the outer one.")
    (folder / INSIDE).mkdir()
    return recognize(weights, folder / INSIDE)


def _only_weights(folder: Path) -> Path:
    """Finds the weights in a folder: a checkpoint, or one file."""
    if (folder / "saved_model.pb").is_file():
        raise UserError(f"it is a SavedModel, whose variables have other names; {SOURCE}.")
    if tensorflow_files.prefix_of(folder) is not None:
        return folder
    paths = itertools.islice(folder.rglob("*"), MOST_MEMBERS)
    files = sorted(path for path in paths if path.is_file() and _is_visible(path, folder))
    folders = {path.parent for path in files if path.suffix == ".index"}
    if len(folders) == 1:
        return folders.pop()
    weights = [file for file in files if file.name.lower().endswith(WEIGHT_SUFFIXES)]
    weights = weights or [file for file in files if file.suffix.lower() not in OTHER_SUFFIXES]
    safetensors = [file for file in weights if file.suffix == ".safetensors"]
    weights = safetensors if len(safetensors) == 1 else weights
    if len(weights) == 1:
        return weights[0]
    if not weights:
        raise UserError(f"it holds no files of weights; {EXPECTED}.")
    names = ", ".join(file.name for file in weights[:5])
    raise UserError(f"it holds {len(weights)} files of weights ({names}); give one of them.")


def _is_visible(path: Path, folder: Path) -> bool:
    return not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)


def _refuse_others(head: bytes):
    """Raises `UserError` for a known format without weights."""
    printable = sum(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head) > 0.95 * len(head)
    for pattern, sentence in (TEXTS if printable else OTHERS).items():
        if re.match(pattern, head, re.DOTALL | (re.IGNORECASE if printable else 0)):
            raise UserError(f"it is {sentence}.")


def _recognize_message(path: Path, head: bytes) -> Format:
    """Recognizes protocol buffers, which have no magic number."""
    size = path.stat().st_size
    if size > MOST_PARSED:
        raise UserError(
            f"it has {size // MIB} MiB, and no weights of GoogLeNet have over "
            f"{MOST_PARSED // MIB} in one message; {EXPECTED}."
        )
    if path.name == "saved_model.pb":
        raise UserError(
            "it is the graph of a SavedModel without its variables; give the checkpoint "
            "variables/variables beside it."
        )
    content = path.read_bytes()
    if GRAPH_HEAD.match(head):
        opened = functools.partial(tensorflow_files.open_graph, content)
        return Format("frozen TensorFlow graph", opened, needs_tensorflow=True)
    try:
        net = caffe_files.parse(content)
    except Exception as error:  # protobuf's own
        if CAFFE_HEAD.match(head):
            raise UserError(
                "it starts like a Caffe model, but is damaged or cut off; download it again."
            ) from error
        net = None
    if net is None:
        raise UserError(f"it holds no weights that are known here; {EXPECTED}.")
    return Format("Caffe model", functools.partial(caffe_files.open_network, net))

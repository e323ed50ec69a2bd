"""Which format a file has, from its content whatever its name, and which reader opens it."""

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

HEAD = 4096  # bytes that are looked at
CHECKPOINT = "TensorFlow checkpoint"
CAFFE_HEAD = re.compile(rb"\n[\x00-\x7f][ -~]*(\x12|\xa2\x06|[\x18-\x28])|\x12|\xa2\x06")
GRAPH_HEAD = re.compile(rb"\n[\x80-\xff]*[\x00-\x7f]\n")  # a node, which begins with its name
ONNX_HEAD = re.compile(rb"\x08[\x03-\x20][\x12\x3a\x42]")  # version, then producer, graph or opset
TAR_MAGIC = b"ustar"  # at byte 257
PACKED = {b"\x1f\x8b": gzip, b"BZh": bz2, b"\xfd7zXZ": lzma}
INSIDE = "inside"  # the folder for an archive in an archive
MOST_MEMBERS = 10_000  # of an archive or a folder
WEIGHTS = (
    *(".caffemodel", ".h5", ".pth", ".pt", ".th", ".pth.tar", ".pt.tar", ".bin", ".ckpt"),
    *(".safetensors", ".pb"),
)
OTHER_FILES = (
    *(".txt", ".md", ".json", ".yaml", ".yml", ".prototxt", ".solverstate", ".binaryproto", ".py"),
    *(".csv", ".log", ".png", ".jpg", ".jpeg", ".html"),
)
EXPECTED = (
    "give a Caffe model, a PyTorch state dictionary (.pth or .safetensors), a TensorFlow "
    "checkpoint, or a frozen graph"
)
TEXTS = {
    rb"version https://git-lfs": "it is a pointer of Git LFS and not the file that it stands for; "
    "run `git lfs pull` where it lies",
    rb"\s*<(!doctype|html|\?xml)": "it is a web page, not weights; download the file itself",
    rb"(?s).*?\b(layers?|input_dim|input_shape|input_param|convolution_param)\s*[:{]": "it is a "
    "prototxt, which describes a network and holds no weights; give the .caffemodel beside it",
    rb"\s*[{\[]": f"it is JSON, not weights; {EXPECTED}",
}
OTHERS = {
    rb"....TFL3": "it is a LiteRT file, from which no training goes on; give the weights that it "
    "was made of",
    rb"\x93NUMPY": f"it is an array of NumPy; {EXPECTED}",
    rb"\xff\xd8|\x89PNG|GIF8|RIFF|BM": f"it is an image; {EXPECTED}",
    rb"%PDF": f"it is a PDF; {EXPECTED}",
    rb"MATLAB": f"it is a file of MATLAB; {EXPECTED}",
    rb"7z\xbc\xaf|Rar!": "it is an archive that Python does not unpack; unpack it and give the "
    "file inside",
    rb"\x80[\x02-\x05]": "it is a pickle, but none of torch.save; where it was made, write "
    "torch.save(model.state_dict(), 'weights.pth')",
    ONNX_HEAD.pattern: "it is an ONNX file, which keeps no layers' names; give the weights that it "
    "was made of",
}


class Format(NamedTuple):
    """What a file is taken for, and how it is opened."""

    name: str
    open: Callable[[], Contents]
    needs_tensorflow: bool = False


def recognize(path: Path, scratch: Path) -> Format:
    """Finds the reader for a file.

    Args:
        path: A file, the prefix of a checkpoint, or a folder with weights in it.
        scratch: An empty folder for what an archive holds.

    Returns:
        The format and its reader.

    Raises:
        UserError: If no reader knows it; it says what the file is instead, where that shows.
    """
    prefix = tensorflow_files.prefix_of(path)
    if prefix is not None:
        opened = functools.partial(tensorflow_files.open_checkpoint, prefix)
        return Format(CHECKPOINT, opened, needs_tensorflow=True)
    if path.is_dir():
        return recognize(_only_weights(path), scratch)
    if path.suffix == ".solverstate":
        raise UserError("it is what Caffe's solver remembers; give the .caffemodel beside it.")
    if not path.is_file():
        raise UserError(f"there is no such file; {EXPECTED}.")
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head:
        raise UserError("the file is empty; download it again.")
    found = _format_by_magic(path, head)
    if found is not None:
        return found
    if head.startswith(b"PK\x03\x04"):
        return _format_of_zip(path, scratch)
    if head.startswith(tuple(PACKED)) or head[257:262] == TAR_MAGIC:
        _unpack_tar(path, scratch, head)
        return _format_inside(scratch)
    _refuse_others(head)
    return _format_of_message(path, head)


def _format_by_magic(path: Path, head: bytes) -> Format | None:
    if head.startswith(torch_files.OLD_FORM):
        return Format("PyTorch file", functools.partial(torch_files.open_old_form, path))
    if head.startswith(b"\x89HDF"):
        return Format("HDF5 file", functools.partial(caffe_files.open_hdf5, path))
    if head[8:9] == b"{" and b'"' in head:
        return Format("safetensors file", functools.partial(torch_files.open_file, path))
    return None


def _format_of_zip(path: Path, scratch: Path) -> Format:
    archive = zipfile.ZipFile(path)
    last = {member.filename.split("/")[-1] for member in archive.infolist()}
    if "constants.pkl" in last:
        raise UserError(
            "it is a TorchScript program, not its weights; load it with torch.jit.load and write "
            "torch.save(model.state_dict(), 'weights.pth')."
        )
    if "data.pkl" in last:
        return Format("PyTorch file", functools.partial(torch_files.open_zip, archive))
    if all(name.endswith(".npy") for name in last):
        raise UserError(f"it is an archive of NumPy (.npz); {EXPECTED}.")
    if "model.weights.h5" in last:
        raise UserError("it is a .keras file already, which the scripts take as it is.")
    members = [member for member in archive.infolist() if not member.is_dir()]
    _check_size(len(members), sum(member.file_size for member in members))
    for member in members:
        archive.extract(member, scratch)
    return _format_inside(scratch)


def _unpack_tar(path: Path, folder: Path, head: bytes):
    """Unpacks the files of a tar archive, or the one that was only compressed."""
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


def _format_inside(folder: Path) -> Format:
    found = _only_weights(folder)
    if folder.name == INSIDE:
        raise UserError("it is an archive in an archive; unpack the outer one.")
    (folder / INSIDE).mkdir()
    return recognize(found, folder / INSIDE)


def _format_of_message(path: Path, head: bytes) -> Format:
    """Tells protocol buffers apart, whose format has no mark."""
    size = path.stat().st_size
    if size > MOST_PARSED:
        raise UserError(
            f"it has {size // MIB} MiB, and no weights of GoogLeNet have over "
            f"{MOST_PARSED // MIB} in one message; {EXPECTED}."
        )
    if path.name == "saved_model.pb":
        raise UserError(
            "it is the graph of a SavedModel, whose weights lie in variables/ beside it; give the "
            "checkpoint variables/variables."
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
                "it begins as a Caffe model does, but is damaged or cut off; download it again."
            ) from error
        net = None
    if net is None:
        raise UserError(f"it holds no weights that are known here; {EXPECTED}.")
    return Format("Caffe model", functools.partial(caffe_files.open_network, net))


def _refuse_others(head: bytes):
    """Raises `UserError` for what is something else, and says what."""
    printable = sum(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head) > 0.95 * len(head)
    for pattern, sentence in (TEXTS if printable else OTHERS).items():
        if re.match(pattern, head, re.DOTALL | (re.IGNORECASE if printable else 0)):
            raise UserError(f"{sentence}.")


def _only_weights(folder: Path) -> Path:
    """Finds the weights in a folder: a checkpoint, or one file."""
    if (folder / "saved_model.pb").is_file():
        raise UserError(
            "it is a SavedModel, whose variables have other names; give the weights that it was "
            "exported from."
        )
    if tensorflow_files.prefix_of(folder) is not None:
        return folder
    paths = itertools.islice(folder.rglob("*"), MOST_MEMBERS)
    files = sorted(path for path in paths if path.is_file() and _is_visible(path, folder))
    folders = {path.parent for path in files if path.suffix == ".index"}
    if len(folders) == 1:
        return folders.pop()
    found = [file for file in files if file.name.lower().endswith(WEIGHTS)]
    found = found or [file for file in files if file.suffix.lower() not in OTHER_FILES]
    safetensors = [file for file in found if file.suffix == ".safetensors"]
    found = safetensors if len(safetensors) == 1 else found
    if len(found) != 1:
        names = ", ".join(file.name for file in found[:5])
        raise UserError(
            f"it holds {len(found) or 'no'} files of weights{f' ({names})' if names else ''}; "
            f"{'give one of them' if found else EXPECTED}."
        )
    return found[0]


def _is_visible(path: Path, folder: Path) -> bool:
    return not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)

"""Reads torchvision's GoogLeNet: `.pth` in both of PyTorch's forms, or `.safetensors`.

Source of the names: torchvision/models/googlenet.py. Its `branch3` convolves 3x3 where the paper
has 5x5. The published file's auxiliary heads were never trained.
"""

import io
import json
import math
import struct
from pathlib import Path

import numpy as np

from keras_googlenet.errors import UserError
from keras_googlenet.weights import archives, pickles
from keras_googlenet.weights.sources import (
    Contents,
    Source,
    as_array,
    is_size,
    mapped,
    module_layers,
    short,
)

SOURCE = Source(
    format="torchvision state dictionary",
    variant="torchvision",
    layers={
        "conv1_7x7_s2": "conv1",
        "conv2_3x3_reduce": "conv2",
        "conv2_3x3": "conv3",
        **module_layers(
            "inception{module}.{branch}",
            {
                "1x1": "branch1",
                "3x3_reduce": "branch2.0",
                "3x3": "branch2.1",
                "5x5_reduce": "branch3.0",
                "5x5": "branch3.1",
                "pool_proj": "branch4.1",
            },
        ),
        "main": "fc",
        "aux1_conv": "aux1.conv",
        "aux1_fc": "aux1.fc1",
        "aux1": "aux1.fc2",
        "aux2_conv": "aux2.conv",
        "aux2_fc": "aux2.fc1",
        "aux2": "aux2.fc2",
    },
    parts={
        "Conv2D": {"kernel": ".conv.weight"},
        "BatchNormalization": {
            "gamma": ".bn.weight",
            "beta": ".bn.bias",
            "moving_mean": ".bn.running_mean",
            "moving_variance": ".bn.running_var",
        },
        "Dense": {"kernel": ".weight", "bias": ".bias"},
    },
    channels_first=True,
)
MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of PyTorch's form before 1.6, which 2019 wrote
MOST_PICKLE = 2 * 2**20  # bytes; the published file's takes 0.1 MB
SAFETENSORS_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8"}


def read(path: Path) -> Contents:
    """Reads the tensors of a state dictionary.

    Args:
        path: A `.pth` or `.safetensors` file.

    Returns:
        Arrays by the names of the parameters and buffers.

    Raises:
        UserError: If it is damaged, or its pickle does anything but describe tensors.
    """
    if archives.is_zip(path):
        return Contents(_read_zip(path))
    with mapped(path) as content:
        if is_safetensors(content):
            return Contents(_read_safetensors(content))
        return Contents(_read_old(content))


def is_old_form(content) -> bool:
    """Whether bytes begin with the pickle of `MAGIC`."""
    return bytes(content[:14]) == b"\x80\x02\x8a\x0a" + MAGIC.to_bytes(10, "little")


def is_safetensors(content) -> bool:
    """Whether bytes begin with the length of a JSON object and the object."""
    return len(content) > 8 and content[8] == ord("{")


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    pickle_name = _pickle_name(archives.zip_names(path))
    content = archives.read_members(path, [pickle_name])[pickle_name]
    if len(content) > MOST_PICKLE:
        raise UserError(f"{pickle_name} has {len(content)} bytes; a state dictionary has fewer.")
    tensors = _tensors(pickles.load(io.BytesIO(content)))
    folder = pickle_name.removesuffix("data.pkl")
    members = {key: f"{folder}data/{key}" for key in {t.storage.key for t in tensors.values()}}
    storages = archives.read_members(path, list(members.values()))
    return {
        name: _view(storages[members[tensor.storage.key]], tensor, name)
        for name, tensor in tensors.items()
    }


def _pickle_name(names: list[str]) -> str:
    found = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(found) != 1:
        raise UserError(f"the archive holds {len(found)} files data.pkl, not one.")
    return found[0]


def _read_old(content: memoryview) -> dict[str, np.ndarray]:
    """Reads five pickles (magic, version, system, dictionary, keys), then the storages."""
    stream = io.BytesIO(content[:MOST_PICKLE])
    magic, _, _, dictionary, keys = (pickles.load(stream) for _ in range(5))
    if magic != MAGIC or not isinstance(keys, list):
        raise UserError("it is no file of torch.save.")
    tensors = _tensors(dictionary)
    sizes = {t.storage.key: np.dtype(t.storage.dtype).itemsize for t in tensors.values()}
    storages, at = {}, stream.tell()
    for key in keys:
        if not isinstance(key, str) or key not in sizes or key in storages:
            raise UserError("its list of storages does not fit its tensors; the file is damaged.")
        header = bytes(content[at : at + 8])
        size = struct.unpack("<q", header)[0] * sizes[key] if len(header) == 8 else -1
        if not 0 <= size <= len(content) - at - 8:
            raise UserError(
                f"byte {at} announces {size} bytes where {len(content) - at - 8} are left; the "
                "file is damaged or cut off."
            )
        storages[key] = content[at + 8 : at + 8 + size]
        at += 8 + size
    return {
        name: _view(storages.get(tensor.storage.key, b""), tensor, name)
        for name, tensor in tensors.items()
    }


def _tensors(dictionary) -> dict[str, pickles.Tensor]:
    if not isinstance(dictionary, dict) or not dictionary:
        raise UserError("its pickle holds no dictionary of weights; save model.state_dict().")
    for name, value in dictionary.items():
        if not isinstance(value, pickles.Tensor):
            raise UserError(f"{name[:60]} in it is no tensor; save model.state_dict().")
    return dictionary


def _view(storage, tensor: pickles.Tensor, name: str) -> np.ndarray:
    size = np.dtype(tensor.storage.dtype).itemsize
    if len(storage) != tensor.storage.count * size:
        raise UserError(f"the numbers of {name[:60]} are cut off; the file is damaged.")
    content = storage[tensor.offset * size : (tensor.offset + math.prod(tensor.shape)) * size]
    return as_array(content, tensor.storage.dtype, tensor.shape, name[:60])


def _read_safetensors(content: memoryview) -> dict[str, np.ndarray]:
    """Reads a header of JSON and the arrays that it points to."""
    size = struct.unpack("<Q", content[:8])[0]
    if size > min(MOST_PICKLE, len(content) - 8):
        raise UserError(f"its header announces {size} bytes; the file is damaged or cut off.")
    try:
        header = json.loads(bytes(content[8 : 8 + size]))
    except (ValueError, RecursionError) as error:
        raise UserError(f"its header is no JSON: {short(error)}.") from error
    arrays, data = {}, content[8 + size :]
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = SAFETENSORS_TYPES[entry["dtype"]], tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            if not all(map(is_size, (*shape, begin, end))):
                raise ValueError("these are no sizes")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"the entry {name[:60]} in its header is damaged.") from error
        if not begin <= end <= len(data):
            raise UserError(f"{name[:60]} stands at bytes {begin} to {end} of {len(data)}.")
        arrays[name] = as_array(data[begin:end], dtype, shape, name[:60])
    return arrays

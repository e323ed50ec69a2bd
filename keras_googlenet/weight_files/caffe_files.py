"""Caffe's `NetParameter` as a protocol buffer, in three dialects, and as HDF5.

Source: caffe.proto of github.com/BVLC/caffe (`layer`, and `layers` of 2014); branch caffe-0.17 of
github.com/NVIDIA/caffe (`raw_data`, which DIGITS writes); Net::ToHDF5 of net.cpp.
"""

import functools
import math
from pathlib import Path

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from keras_googlenet.errors import UserError
from keras_googlenet.weight_files.arrays import Array, Contents, check_names, check_shape

INT32, INT64, STRING, MESSAGE, BYTES = 5, 3, 9, 11, 12  # FieldDescriptorProto.Type
# Packed numbers are encoded as bytes are; declared as bytes they do not become objects.
MESSAGES = {
    "BlobShape": {"dim": (1, INT64)},
    "BlobProto": {
        "num": (1, INT32),
        "channels": (2, INT32),
        "height": (3, INT32),
        "width": (4, INT32),
        "data": (5, BYTES),
        "shape": (7, "BlobShape"),
        "double_data": (8, BYTES),
        "raw_data_type": (10, INT32),
        "raw_data": (12, BYTES),
    },
    "LayerParameter": {"name": (1, STRING), "type": (2, STRING), "blobs": (7, "BlobProto")},
    "V1LayerParameter": {"name": (4, STRING), "type": (5, INT32), "blobs": (6, "BlobProto")},
    "NetParameter": {"layers": (2, "V1LayerParameter"), "layer": (100, "LayerParameter")},
}
REPEATED = ("dim", "blobs", "layers", "layer")
RAW_TYPES = ("<f8", "<f4", "<f2")  # NVCaffe's Type: DOUBLE, FLOAT, FLOAT16


@functools.cache
def net_parameter() -> type:
    """Returns the message class with the fields for weights."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, (number, kind) in fields.items():
            label = 3 if field_name in REPEATED else 1
            field = message.field.add(name=field_name, number=number, label=label)
            field.type = MESSAGE if isinstance(kind, str) else kind
            if isinstance(kind, str):
                field.type_name = f".caffe.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


def parse(content: bytes):
    """Returns the message, or `None` if it is not a network with named layers."""
    net = net_parameter()()
    net.ParseFromString(content)
    return net if any(layer.name for layer in [*net.layer, *net.layers]) else None


def open_network(net) -> Contents:
    """Lists the blobs of all layers as `layer[0]`, `layer[1]`, …."""
    blobs, typed = {}, []
    for layer in [*net.layer, *net.layers]:
        for index, blob in enumerate(layer.blobs):
            name = f"{layer.name}[{index}]"
            if name in blobs:
                raise UserError(f"two of its layers are called {layer.name}; give each its name.")
            blobs[name] = blob
            typed += [name] if layer.type else []
    check_names(blobs)
    arrays = {name: _array(name, blob) for name, blob in blobs.items()}

    def read(name: str) -> np.ndarray:
        dtype, shape = arrays[name]
        return np.frombuffer(_numbers(blobs[name])[0], dtype).reshape(shape)

    return Contents(arrays, read, {"typed": typed})


def _array(name: str, blob) -> Array:
    old_form = (blob.num, blob.channels, blob.height, blob.width)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else old_form
    content, dtype = _numbers(blob)
    if blob.raw_data and not blob.HasField("raw_data_type") and math.prod(shape[:8]):
        size = len(content) // math.prod(shape[:8])
        dtype = f"<f{size}" if size in (2, 4, 8) else dtype
    check_shape(name, shape, dtype, len(content))
    return Array(dtype, shape)


def _numbers(blob) -> tuple[bytes, str]:
    if blob.raw_data:
        if not 0 <= blob.raw_data_type < len(RAW_TYPES):
            raise UserError(f"a blob is of NVCaffe's type {blob.raw_data_type}, no real numbers.")
        return blob.raw_data, RAW_TYPES[blob.raw_data_type]
    return (blob.double_data, "<f8") if blob.double_data else (blob.data, "<f4")


def open_hdf5(path: Path) -> Contents:
    """Lists the datasets of an HDF5 file; Caffe's `data/layer/0` as `layer[0]`."""
    import h5py

    file = h5py.File(path, "r")
    datasets = {}

    def add(name: str, item):
        if isinstance(item, h5py.Dataset):
            layer, _, index = name.removeprefix("data/").rpartition("/")
            is_blob = name.startswith("data/") and index.isdecimal()
            datasets[f"{layer}[{index}]" if is_blob else name] = item

    file.visititems(add)  # follows no links
    check_names(datasets)

    def read(name: str) -> np.ndarray:
        if datasets[name].external or datasets[name].is_virtual:
            raise UserError(f"{name} keeps its numbers in another file; give a complete file.")
        return datasets[name][()]

    by_keras = "layers" in file or "model_weights" in file or "layer_names" in file.attrs
    arrays = {name: Array(item.dtype.str, item.shape) for name, item in datasets.items()}
    return Contents(arrays, read, {"keras": by_keras})

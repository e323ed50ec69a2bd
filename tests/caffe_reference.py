"""Caffe in miniature, for tests: its file format by Google's protobuf, its forward pass in NumPy.

Nothing of the package is used: messages are declared here from caffe.proto, blobs stay in Caffe's
layout (out, in, y, x), images are blue, green, red and (channel, y, x), padding and the rounding
up of pools are Caffe's own arithmetic.
"""

import math

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from numpy.lib.stride_tricks import sliding_window_view
from reference import INCEPTION

DOUBLE, FLOAT, INT64, INT32, STRING, MESSAGE, BYTES = 1, 2, 3, 5, 9, 11, 12  # of a field
RAW_TYPES = {"float64": 0, "float32": 1, "float16": 2}  # enum Type of NVIDIA's caffe.proto
MESSAGES = {
    "BlobShape": [("dim", 1, INT64, "packed")],
    "BlobProto": [
        ("num", 1, INT32, ""),
        ("channels", 2, INT32, ""),
        ("height", 3, INT32, ""),
        ("width", 4, INT32, ""),
        ("data", 5, FLOAT, "packed"),
        ("shape", 7, "BlobShape", ""),
        ("double_data", 8, DOUBLE, "packed"),
        ("raw_data_type", 10, INT32, ""),  # NVIDIA's Caffe, which DIGITS runs
        ("raw_data", 12, BYTES, ""),
    ],
    "LayerParameter": [
        ("name", 1, STRING, ""),
        ("type", 2, STRING, ""),
        ("blobs", 7, "BlobProto", "repeated"),
    ],
    "V1LayerParameter": [
        ("bottom", 2, STRING, "repeated"),
        ("name", 4, STRING, ""),
        ("blobs", 6, "BlobProto", "repeated"),
    ],
    "NetParameter": [
        ("name", 1, STRING, ""),
        ("layers", 2, "V1LayerParameter", "repeated"),
        ("layer", 100, "LayerParameter", "repeated"),
    ],
}


def net_parameter():
    """The message class `NetParameter`."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind, label in fields:
            field = message.field.add(name=field_name, number=number, label=3 if label else 1)
            field.type = MESSAGE if isinstance(kind, str) else kind
            if isinstance(kind, str):
                field.type_name = f".caffe.{kind}"
            field.options.packed = label == "packed"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


def read_blobs(path):
    """Layer -> its blobs."""
    net = net_parameter()()
    net.ParseFromString(path.read_bytes())
    blobs = {}
    for layer in [*net.layer, *net.layers]:
        for blob in layer.blobs:
            old = (blob.num, blob.channels, blob.height, blob.width)
            shape = blob.shape.dim or old
            blobs.setdefault(layer.name, []).append(np.reshape(blob.data, shape))
    return blobs


def write_blobs(path, blobs, old_form=False, field="data"):
    """A `.caffemodel` of these blobs, in the form of 2014 or today's.

    `field` is where the numbers go: `data`, `double_data`, or `raw_data` in the arrays' own type.
    """
    net = net_parameter()(name="GoogleNet")
    (net.layers if old_form else net.layer).add(name="conv1/relu_7x7")  # a layer without blobs
    for name, arrays in blobs.items():
        layer = (net.layers if old_form else net.layer).add(name=name)
        for array in arrays:
            blob = layer.blobs.add()
            if field == "raw_data":
                blob.raw_data_type = RAW_TYPES[array.dtype.name]
                blob.raw_data = array.tobytes()
            else:
                getattr(blob, field).extend(array.ravel())
            if old_form:
                sides = (1,) * (4 - array.ndim) + array.shape
                blob.num, blob.channels, blob.height, blob.width = sides
            else:
                blob.shape.dim.extend(array.shape)
    path.write_bytes(net.SerializeToString())


def random_blobs(heads=3, classes=1000, seed=0, share=1):
    """Blobs of a GoogLeNet with a share of its filters; activations keep their size."""
    generator = np.random.default_rng(seed)
    blobs = {}

    def add(name, *shape):
        shape = [side if side in (1, 3, 5, 7, classes) else side // share for side in shape]
        scale = math.sqrt(2 / math.prod(shape[1:]))
        kernel = (scale * generator.standard_normal(shape)).astype("float32")
        blobs[name] = [kernel, generator.uniform(-0.2, 0.2, shape[0]).astype("float32")]

    add("conv1/7x7_s2", 64, 3, 7, 7)
    add("conv2/3x3_reduce", 64, 64, 1, 1)
    add("conv2/3x3", 192, 64, 3, 3)
    depth = 192
    for module, (one, reduce3, three, reduce5, five, pool) in INCEPTION.items():
        name = f"inception_{module}"
        add(f"{name}/1x1", one, depth, 1, 1)
        add(f"{name}/3x3_reduce", reduce3, depth, 1, 1)
        add(f"{name}/3x3", three, reduce3, 3, 3)
        add(f"{name}/5x5_reduce", reduce5, depth, 1, 1)
        add(f"{name}/5x5", five, reduce5, 5, 5)
        add(f"{name}/pool_proj", pool, depth, 1, 1)
        depth = one + three + five + pool
    for loss, channels in list({"loss1": 512, "loss2": 528}.items())[: heads - 1]:
        add(f"{loss}/conv", 128, channels, 1, 1)
        add(f"{loss}/fc", 1024, 128 * 4 * 4)
        add(f"{loss}/classifier", classes, 1024)
    add("loss3/classifier", classes, 1024)
    return blobs


def convolve(x, blobs, stride=1, pad=0):
    """`(channels, y, x)` -> `(filters, y, x)`, with bias: a sum over the kernel's positions."""
    kernel, bias = blobs
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    rows, columns = ((side - kernel.shape[2]) // stride + 1 for side in x.shape[1:])
    total = np.zeros((len(kernel), rows * columns))
    for dy, dx in np.ndindex(*kernel.shape[2:]):
        seen = x[:, dy : dy + stride * rows : stride, dx : dx + stride * columns : stride]
        total += kernel[:, :, dy, dx] @ seen[:, :rows, :columns].reshape(len(x), -1)
    return total.reshape(-1, rows, columns) + bias[:, None, None]


def max_pool(x, stride, pad=0):
    """3x3; Caffe rounds the output up and clips the last window at the edge."""
    sides = [math.ceil((side + 2 * pad - 3) / stride) + 1 for side in x.shape[1:]]
    after = [stride * (n - 1) + 3 - side - pad for n, side in zip(sides, x.shape[1:], strict=True)]
    x = np.pad(x, ((0, 0), (pad, after[0]), (pad, after[1])), constant_values=-np.inf)
    return sliding_window_view(x, (3, 3), axis=(1, 2))[:, ::stride, ::stride].max(axis=(-2, -1))


def lrn(x, size=5, alpha=1e-4, beta=0.75):
    """Across channels; Caffe divides alpha by the window."""
    squares = np.pad(x**2, ((size // 2, size // 2), (0, 0), (0, 0)))
    sums = sum(squares[shift : shift + len(x)] for shift in range(size))
    return x / (1 + alpha / size * sums) ** beta


def relu(x):
    return np.maximum(x, 0)


def inception(x, blobs, name):
    def conv(x, part, pad=0):
        return relu(convolve(x, blobs[f"{name}/{part}"], pad=pad))

    branches = [
        conv(x, "1x1"),
        conv(conv(x, "3x3_reduce"), "3x3", pad=1),
        conv(conv(x, "5x5_reduce"), "5x5", pad=2),
        conv(max_pool(x, 1, pad=1), "pool_proj"),
    ]
    return np.concatenate(branches)


def linear(x, blobs):
    return blobs[0] @ x.ravel() + blobs[1]


def auxiliary(x, blobs, loss):
    corners = range(0, x.shape[1] - 4, 3)
    x = np.stack(
        [np.stack([x[:, r : r + 5, c : c + 5].mean((1, 2)) for c in corners], -1) for r in corners],
        axis=1,
    )
    x = relu(convolve(x, blobs[f"{loss}/conv"]))
    x = relu(linear(x, blobs[f"{loss}/fc"]))
    return linear(x, blobs[f"{loss}/classifier"])


def logits(rgb, blobs):
    """Logits of main and of whatever auxiliary heads there are, of one image in [0, 255]."""
    blobs = {name: [array.astype("float64") for array in arrays] for name, arrays in blobs.items()}
    bgr = rgb[:, :, ::-1].astype("float64") - (104, 117, 123)
    x = relu(convolve(bgr.transpose(2, 0, 1), blobs["conv1/7x7_s2"], stride=2, pad=3))
    x = lrn(max_pool(x, 2))
    x = relu(convolve(x, blobs["conv2/3x3_reduce"]))
    x = lrn(relu(convolve(x, blobs["conv2/3x3"], pad=1)))
    x = max_pool(x, 2)
    maps = {}
    for module in INCEPTION:
        if module in ("4a", "5a"):
            x = max_pool(x, 2)
        maps[module] = x = inception(x, blobs, f"inception_{module}")
    heads = [linear(x.mean((1, 2)), blobs["loss3/classifier"])]
    for loss, module in (("loss1", "4a"), ("loss2", "4d")):
        if f"{loss}/conv" in blobs:
            heads.append(auxiliary(maps[module], blobs, loss))
    return heads

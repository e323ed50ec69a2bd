"""The porting tables: names and layouts of our layers in the files of four publishers.

Source of the names: train_val.prototxt of BVLC's bvlc_googlenet; torchvision/models/googlenet.py,
whose `branch3` has a 3x3 convolution where the paper has 5x5; inception_v1.py of TF-slim, whose
batch normalization has no gamma; the nodes of Google's released graph.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_googlenet.googlenet import HEADS, TABLE_1

CONVOLUTIONS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")  # of a module
# slim numbers the modules of a stage from b, because a is the pool before them
SLIM_MODULES = dict(
    zip(TABLE_1, ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c"), strict=True)
)


@dataclass(frozen=True)
class Table:
    """Names and layouts of our layers in a publisher's files."""

    name: str  # of the network, for messages
    variant: str
    layers: Mapping[str, str]  # our layer -> start of the names of its arrays
    parts: Mapping[str, Mapping[str, str]]  # class of layer -> our weight -> end of the name
    channels_first: bool  # kernels are (out, in, y, x) and matrices (out, in)
    bgr: bool = False  # the first convolution expects blue, green, red
    ignored: tuple[str, ...] = ()  # ends of the names of arrays that no network computes with
    modules: bool = False  # a file holds the state of modules, all of which compute
    lrn: Mapping[str, str] = field(default_factory=dict)  # our LRN layer -> node of the graph

    def layers_of(self, *heads: str) -> list[str]:
        """Lists our layers of these heads; without heads, those of the trunk."""
        parts = [(layer, layer.partition("_")[0]) for layer in self.layers]
        return [layer for layer, part in parts if (part in heads if heads else part not in HEADS)]

    def aux_root(self, head: str) -> str:
        """Returns the common start of the names of an auxiliary head; empty if not its own."""
        root = os.path.commonprefix([self.layers[layer] for layer in self.layers_of(head)])
        return root if root.endswith((".", "/")) else ""


def module_layers(pattern: str, convolutions, modules=None) -> dict[str, str]:
    """Returns our layer -> name in the file, for the convolutions of the nine inception modules.

    Args:
        pattern: A name in the file, with `{module}` and `{convolution}` in it.
        convolutions: Their names of `CONVOLUTIONS`, in this order.
        modules: Our module -> theirs, where they differ.
    """
    return {
        f"inception_{module}_{ours}": pattern.format(
            module=modules[module] if modules else module, convolution=theirs
        )
        for module in TABLE_1
        for ours, theirs in zip(CONVOLUTIONS, convolutions, strict=True)
    }


CAFFE = Table(
    name="Caffe's GoogLeNet",
    variant="paper",
    layers={
        "conv1_7x7_s2": "conv1/7x7_s2",
        "conv2_3x3_reduce": "conv2/3x3_reduce",
        "conv2_3x3": "conv2/3x3",
        **module_layers("inception_{module}/{convolution}", CONVOLUTIONS),
        "main": "loss3/classifier",
        "aux1_conv": "loss1/conv",
        "aux1_fc": "loss1/fc",
        "aux1": "loss1/classifier",
        "aux2_conv": "loss2/conv",
        "aux2_fc": "loss2/fc",
        "aux2": "loss2/classifier",
    },
    parts=dict.fromkeys(("Conv2D", "Dense"), {"kernel": "[0]", "bias": "[1]"}),
    channels_first=True,
    bgr=True,
)

TORCHVISION = Table(
    name="torchvision's GoogLeNet",
    variant="torchvision",
    layers={
        "conv1_7x7_s2": "conv1",
        "conv2_3x3_reduce": "conv2",
        "conv2_3x3": "conv3",
        **module_layers(
            "inception{module}.{convolution}",
            ("branch1", "branch2.0", "branch2.1", "branch3.0", "branch3.1", "branch4.1"),
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
    ignored=("num_batches_tracked",),
    modules=True,
)

SLIM = Table(
    name="TF-slim's inception_v1",
    variant="slim",
    layers={
        "conv1_7x7_s2": "InceptionV1/Conv2d_1a_7x7",
        "conv2_3x3_reduce": "InceptionV1/Conv2d_2b_1x1",
        "conv2_3x3": "InceptionV1/Conv2d_2c_3x3",
        **module_layers(
            "InceptionV1/Mixed_{module}/{convolution}",
            (
                "Branch_0/Conv2d_0a_1x1",
                "Branch_1/Conv2d_0a_1x1",
                "Branch_1/Conv2d_0b_3x3",
                "Branch_2/Conv2d_0a_1x1",
                "Branch_2/Conv2d_0b_3x3",
                "Branch_3/Conv2d_0b_1x1",
            ),
            SLIM_MODULES,
        ),
        "inception_5a_5x5": "InceptionV1/Mixed_5b/Branch_2/Conv2d_0a_3x3",  # 0b elsewhere
        "main": "InceptionV1/Logits/Conv2d_0c_1x1",
    },
    parts={
        "Conv2D": {"kernel": "/weights"},
        "BatchNormalization": {
            "beta": "/BatchNorm/beta",
            "moving_mean": "/BatchNorm/moving_mean",
            "moving_variance": "/BatchNorm/moving_variance",
        },
        "Dense": {"kernel": "/weights", "bias": "/biases"},
    },
    channels_first=False,
)

GOOGLE = Table(
    name="Google's graph of GoogLeNet",
    variant="google",
    layers={
        "conv1_7x7_s2": "conv2d0",
        "conv2_3x3_reduce": "conv2d1",
        "conv2_3x3": "conv2d2",
        **module_layers(
            "mixed{module}_{convolution}",
            ("1x1", "3x3_bottleneck", "3x3", "5x5_bottleneck", "5x5", "pool_reduce"),
        ),
        "main": "softmax2",
        "aux1_conv": "head0_bottleneck",
        "aux1_fc": "nn0",
        "aux1": "softmax0",
        "aux2_conv": "head1_bottleneck",
        "aux2_fc": "nn1",
        "aux2": "softmax1",
    },
    parts=dict.fromkeys(("Conv2D", "Dense"), {"kernel": "_w", "bias": "_b"}),
    channels_first=False,
    lrn={"pool1_norm1": "localresponsenorm0", "conv2_norm2": "localresponsenorm1"},
)

TABLES = {table.variant: table for table in (CAFFE, TORCHVISION, SLIM, GOOGLE)}

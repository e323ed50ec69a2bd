"""Reads TF-slim's checkpoint of `inception_v1`, in the form of 2016 (one file) or today's.

Source of the names: inception_v1.py of github.com/google-research/tf-slim; batch normalisation
without gamma, no bias, and class 0 is the background.
"""

import tempfile
from pathlib import Path

from keras_googlenet.weights import archives
from keras_googlenet.weights.checkpoints import read_in_a_process
from keras_googlenet.weights.sources import Contents, Source, module_layers

# slim numbers the modules of a stage from b, because a is the pool before them
MODULES = {
    "3a": "3b",
    "3b": "3c",
    "4a": "4b",
    "4b": "4c",
    "4c": "4d",
    "4d": "4e",
    "4e": "4f",
    "5a": "5b",
    "5b": "5c",
}
MISNAMED = {"inception_5a_5x5": "InceptionV1/Mixed_5b/Branch_2/Conv2d_0a_3x3"}  # 0b elsewhere

SOURCE = Source(
    format="TF-slim checkpoint",
    variant="slim",
    layers={
        "conv1_7x7_s2": "InceptionV1/Conv2d_1a_7x7",
        "conv2_3x3_reduce": "InceptionV1/Conv2d_2b_1x1",
        "conv2_3x3": "InceptionV1/Conv2d_2c_3x3",
        **module_layers(
            "InceptionV1/Mixed_{module}/{branch}",
            {
                "1x1": "Branch_0/Conv2d_0a_1x1",
                "3x3_reduce": "Branch_1/Conv2d_0a_1x1",
                "3x3": "Branch_1/Conv2d_0b_3x3",
                "5x5_reduce": "Branch_2/Conv2d_0a_1x1",
                "5x5": "Branch_2/Conv2d_0b_3x3",
                "pool_proj": "Branch_3/Conv2d_0b_1x1",
            },
            MODULES,
        ),
        **MISNAMED,
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


def read(path: Path) -> Contents:
    """Reads the variables of a checkpoint.

    Args:
        path: A checkpoint (`.ckpt` of 2016, or the prefix or `.index` of today's), or its tar.gz.

    Returns:
        Arrays by the names of the variables.

    Raises:
        UserError: If it is damaged or too large.
    """
    with tempfile.TemporaryDirectory() as folder:
        if is_gzip(path):
            path = archives.unpack_checkpoint(path, Path(folder))
        prefix = path.with_suffix("") if path.suffix == ".index" else path
        return Contents(read_in_a_process(prefix))


def is_gzip(path: Path) -> bool:
    """Whether a file begins as a gzip file does."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"

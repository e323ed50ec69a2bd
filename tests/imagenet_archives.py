"""The two archives of ILSVRC 2012 as its organizers lay them out, with a few images."""

import io
import tarfile

import numpy as np
from PIL import Image

WNIDS = ("n01440764", "n01443537", "n02123045")
A_CLASS = 8
VALIDATION = 6


def write(manual):
    """Writes both archives into the folder where TensorFlow Datasets looks for them."""
    manual.mkdir(parents=True)
    with tarfile.open(manual / "ILSVRC2012_img_train.tar", "w") as archive:
        for number, wnid in enumerate(WNIDS):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as tar:
                for image in range(A_CLASS):
                    _add(tar, f"{wnid}_{image}.JPEG", _jpeg(100 * number + image))
            _add(archive, f"{wnid}.tar", inner.getvalue())
    with tarfile.open(manual / "ILSVRC2012_img_val.tar", "w") as archive:
        for number in range(1, VALIDATION + 1):
            _add(archive, f"ILSVRC2012_val_{number:08}.JPEG", _jpeg(number))


def _add(tar, name, content):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _jpeg(number):
    colors = np.random.default_rng(number).integers(0, 256, (12, 10, 3), "uint8")
    file = io.BytesIO()
    Image.fromarray(colors).resize((100, 80)).save(file, "JPEG")
    return file.getvalue()

"""Who publishes which weights: address, hash, licence."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 2**20  # bytes hashed at a time


@dataclass(frozen=True)
class Publisher:
    """Where a variant's published weights come from.

    Attributes:
        name: Of the publisher, with the data set.
        url: Address of the file.
        hash_kind: Algorithm of `hashlib`.
        hash: Its beginning, as far as the publisher gives it; empty if it gives none.
        licence: Under which terms.
    """

    name: str
    url: str
    hash_kind: str
    hash: str
    licence: str

    @property
    def file_name(self) -> str:
        """The last part of the address."""
        return self.url.rpartition("/")[2]

    def matches(self, path: Path) -> bool:
        """Whether a file has the published hash; true of any file where there is none."""
        return file_hash(path, self.hash_kind).startswith(self.hash)


PUBLISHERS = {
    "paper": Publisher(
        name="BVLC GoogLeNet, trained on ILSVRC 2012",
        url="http://dl.caffe.berkeleyvision.org/bvlc_googlenet.caffemodel",
        hash_kind="sha1",
        hash="405fc5acd08a3bb12de8ee5e23a96bec22f08204",  # the model's readme.md in BVLC/caffe
        licence="unrestricted use",
    ),
    "torchvision": Publisher(
        name="torchvision GoogLeNet, IMAGENET1K_V1",
        url="https://download.pytorch.org/models/googlenet-1378be20.pth",
        hash_kind="sha256",
        hash="1378be20",  # part of the file's name, which torch.hub checks
        licence="BSD 3-Clause (torchvision); ported by its authors from TF-slim's, Apache 2.0",
    ),
    "slim": Publisher(
        name="TF-slim inception_v1, 2016-08-28, trained on ILSVRC 2012",
        url="http://download.tensorflow.org/models/inception_v1_2016_08_28.tar.gz",
        hash_kind="sha256",
        hash="",  # none is published
        licence="Apache 2.0",
    ),
    "google": Publisher(
        name="Google Inception 5h, trained on ImageNet",
        url="https://storage.googleapis.com/download.tensorflow.org/models/inception5h.zip",
        hash_kind="sha256",
        hash="d13569f6a98159de37e92e9c8ec4dae8f674fbf475f69fe6199b514f756d4364",  # TF's WORKSPACE
        licence="Apache 2.0",
    ),
}


def provenance(variant: str, path: Path) -> str:
    """Says whether a file is the published one of a variant, and then under which licence.

    Args:
        variant: A key of `PUBLISHERS`.
        path: A file of that variant.

    Returns:
        A line.
    """
    publisher = PUBLISHERS[variant]
    if publisher.hash and path.is_file() and publisher.matches(path):
        known = f"{publisher.hash_kind} {publisher.hash}"
        return f"published by {publisher.name} ({known}); licence: {publisher.licence}"
    if not publisher.hash and path.name == publisher.file_name:
        return (
            f"named as {publisher.name}, which publishes no hash to check; its licence: "
            f"{publisher.licence}"
        )
    return "no published file that is known here; its licence is that of whoever trained it"


def file_hash(path: Path, kind: str) -> str:
    """Returns a file's hash in hexadecimal."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()

"""Which images of a folder are held out for validation: by a hash of each file's name.

Each image is decided by itself, so that a new one moves no other.
"""

import hashlib
import math

from keras_googlenet.data.listing import file_name
from keras_googlenet.errors import UserError

Images = dict[str, list[str]]  # class -> files


def split_by_hash(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """Splits off the images with the lowest hashes: about `share` of each class.

    Both the training set and what is held out get at least one image of each class. Raises
    UserError if a class has only one.
    """
    train, held_out = {}, {}
    for name, files in images.items():
        if len(files) < 2:
            raise UserError(f"the class {name} has one image; give it two or more to split.")
        hashes = [hash_fraction(seed, name, file) for file in files]
        limit = min(max(share, math.nextafter(min(hashes), 1)), max(hashes))
        pairs = list(zip(files, hashes, strict=True))
        held_out[name] = [file for file, fraction in pairs if fraction < limit]
        train[name] = [file for file, fraction in pairs if fraction >= limit]
    return train, held_out


def hash_fraction(seed: int, class_name: str, file: str) -> float:
    """Maps seed, class and file name, without its folders, to a fraction in [0, 1)."""
    digest = hashlib.blake2b(f"{seed}/{class_name}/".encode() + file_name(file), digest_size=8)
    return (int.from_bytes(digest.digest(), "big") >> 11) / 2**53

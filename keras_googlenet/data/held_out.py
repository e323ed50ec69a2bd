"""Which images are held out: each is decided by itself, so that a new one moves no other."""

import hashlib
import math
import os
import unicodedata

from keras_googlenet.errors import UserError

Images = dict[str, list[str]]  # class name -> files


def split_by_hash(images: Images, share: float, seed: int) -> tuple[Images, Images]:
    """Holds out the images whose hash is low: about `share` of each class, one at least, not all.

    Args:
        images: Files of each class, two at least.
        share: In (0, 1).
        seed: Decides which, together with the class and the name of the file, without its folders.

    Returns:
        What is left, and what is held out, both by class.

    Raises:
        UserError: If a class has one image.
    """
    left, held_out = {}, {}
    for name, files in images.items():
        if len(files) < 2:
            raise UserError(f"the class {name} has one image; give it two or more to split.")
        places = [place(seed, name, file) for file in files]
        limit = min(max(share, math.nextafter(min(places), 1)), max(places))
        held_out[name] = [file for file, at in zip(files, places, strict=True) if at < limit]
        left[name] = [file for file, at in zip(files, places, strict=True) if at >= limit]
    return left, held_out


def place(seed: int, class_name: str, file: str) -> float:
    """Maps an image to a number in [0, 1), which depends on nothing but the arguments.

    Args:
        seed: Any integer.
        class_name: Its class.
        file: Its path, of which the name counts.
    """
    digest = hashlib.blake2b(f"{seed}/{class_name}/".encode() + file_name(file), digest_size=8)
    return (int.from_bytes(digest.digest(), "big") >> 11) / 2**53


def file_name(file: str) -> bytes:
    """Returns the name of a file, the same whichever form of Unicode its file system has."""
    name = os.path.basename(file)
    return os.fsencode(unicodedata.normalize("NFC", name))

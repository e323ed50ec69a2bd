"""Class folders that cannot be what they seem: images that lie there twice, classes too deep."""

import os
import re
from collections import Counter

from keras_googlenet.data.contents import LeftOut
from keras_googlenet.data.listing import Folder
from keras_googlenet.data.split_folders import listed, only_folders
from keras_googlenet.data.split_names import loose
from keras_googlenet.errors import UserError

COPIES = "class folder{s} that look like a copy (taken)"
_COPY = re.compile(r" - copy\b|^copy of |\(.*conflicted copy", re.IGNORECASE)


def check_class_folders(folder: Folder, left_out: LeftOut):
    """Looks at all class folders of one split.

    Args:
        folder: Holds them.
        left_out: Is told which look like copies.

    Raises:
        UserError: If images seem to lie there twice, or the folders inside seem to be the classes.
    """
    classes = folder.with_images()
    _refuse_doubles(classes)
    _refuse_same_folders(classes)
    for each in classes:
        if _COPY.search(each.name()):
            left_out.add(COPIES, each.path)


def _refuse_doubles(classes: list[Folder]):
    """Refuses `cat/ dog/ animals/cat/ animals/dog/`."""
    names = {loose(each.name()) for each in classes}
    for outer in classes:
        own = loose(outer.name())
        for around in outer.all_folders():
            inside = around.with_images()
            found = [each.name() for each in inside if loose(each.name()) in names - {own}]
            if around.images or len(inside) > 1:  # else `cat/cat/`, as archives unpack
                found += [each.name() for each in inside if loose(each.name()) == own]
            if found and len(classes) > 1:
                raise UserError(
                    f"{outer.path} holds folders named as those beside it ({listed(found)}), so "
                    "the images seem to lie there twice; remove one copy, or give --dataset "
                    f"{around.path}."
                )


def _refuse_same_folders(classes: list[Folder]):
    """Refuses `color/rose/ color/tulip/ gray/rose/ gray/tulip/`: which of both are the classes?"""
    holders = {}  # loose name of an inner folder -> the folders that hold one
    for number, each in enumerate(classes):
        each = only_folders(each)
        inside = {loose(inner.name()): inner.name() for inner in each.with_images()}
        if each.images or len(inside) < 2:
            continue
        common = Counter(other for name in inside for other in holders.get(name, ()))
        for other, count in common.items():
            if count > 1:
                names = [inside[name] for name in inside if other in holders.get(name, ())]
                one, two = classes[other], classes[number]
                raise UserError(
                    f"{one.name()}/ and {two.name()}/ in {os.path.dirname(one.path)} hold the same "
                    f"folders ({listed(names)}): if those are the classes, give one of the two as "
                    f"--dataset; if {one.name()} and {two.name()} are, move the images right into "
                    "them."
                )
        for name in inside:
            holders.setdefault(name, []).append(number)

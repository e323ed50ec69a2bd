"""What was taken for what in a data set, and what was left out: one line, and the same as JSON."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_NAMED = 3  # folders that a reason names
MOST_NAMES = 8  # classes that the line names


@dataclasses.dataclass
class LeftOut:
    """What of a folder is not used: reasons, each with how often and where.

    Attributes:
        root: The folder.
        found: Reason -> how many times it was met in each folder, relative to `root`.
    """

    root: str
    found: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    def add(self, reason: str, folder: str, count: int = 1):
        """Counts things.

        Args:
            reason: What they are, with `{s}` or `{ies}` where the plural differs, and in brackets
                why they are left out.
            folder: Where they are.
            count: How many.
        """
        places = self.found.setdefault(reason, {})
        place = printable(os.path.relpath(folder, self.root))
        places[place] = places.get(place, 0) + count

    def as_json(self) -> list[dict]:
        """Returns a reason, its count, and the folders that it was met in."""
        return [
            {"what": _plural(reason, 2), "count": sum(places.values()), "folders": list(places)}
            for reason, places in self.found.items()
        ]

    def __str__(self) -> str:
        return "; ".join(
            f"{count:,} {_plural(reason, count)} in {_listed(places)}"
            for reason, places in self.found.items()
            if (count := sum(places.values()))
        )


class SplitContents(NamedTuple):
    """One half of a data set, as it was found.

    Attributes:
        source: Where its images come from: a folder relative to the data set, or a split.
        images: How many.
        classes: Of how many classes.
        names: Of the classes, where they are few.
    """

    source: str
    images: int
    classes: int
    names: Sequence[str] = ()

    def as_json(self) -> dict:
        """Returns plain JSON values."""
        return self._asdict() | {"names": list(self.names)}

    def __str__(self) -> str:
        names = f" ({', '.join(self.names)})" if self.names else ""
        counts = f"{_many(self.images, 'image')} of {_many(self.classes, 'class')}"
        return f"{counts}{names} in {self.source}"


class Contents(NamedTuple):
    """What was found in a data set.

    Attributes:
        dataset: Its folder or name.
        train: What is learned from, if anything.
        validation: What is measured on.
        left_out: What is not used.
        turned: How many photographs of a sample of so many ask to be turned, by their EXIF
            orientation, which training ignores.
    """

    dataset: str
    train: SplitContents | None
    validation: SplitContents
    left_out: LeftOut
    turned: tuple[int, int] = (0, 0)

    def as_json(self) -> dict:
        """Returns plain JSON values."""
        return {
            "dataset": self.dataset,
            "train": self.train and self.train.as_json(),
            "validation": self.validation.as_json(),
            "left_out": self.left_out.as_json(),
            "exif_turned": dict(zip(("images", "of_sampled"), self.turned, strict=True)),
        }

    def __str__(self) -> str:
        is_folder = os.path.isabs(self.dataset)
        name = Path(self.dataset).name if is_folder else self.dataset
        text = f"data: {printable(name)}: "
        if self.train:
            text += f"{self.train} to learn from, "
        text += f"{self.validation} to measure on"
        if self.left_out.found:
            text += f"; left out: {self.left_out}"
        turned, sampled = self.turned
        if turned:
            text += (
                f"; {turned} of {sampled} sampled images ask to be turned by their EXIF "
                "orientation, which is ignored here: turn them for good with `magick mogrify "
                "-auto-orient` (docs/data.md)"
            )
        return text


def _plural(reason: str, count: int) -> str:
    one = count == 1
    return reason.replace("{s}", "" if one else "s").replace("{ies}", "y" if one else "ies")


def _listed(places) -> str:
    names = ["the data set's folder" if place == "." else f"{place}/" for place in places]
    named = ", ".join(names[:_NAMED])
    more = len(places) - _NAMED
    return f"{named} and {_many(more, 'folder')} more" if more > 0 else named


def _many(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def printable(path: str) -> str:
    """Returns a name as it can be printed, also if it has bytes that are no UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")

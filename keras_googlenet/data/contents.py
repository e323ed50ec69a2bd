"""What was found in a data set and what was skipped, as one line and as JSON."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

MOST_NAMES = 8  # classes that the line names
_MOST_FOLDERS = 3  # folders that the line names for each reason


@dataclasses.dataclass
class Skipped:
    """What is not used of a folder: `counts` maps a reason and a folder below `root` to a count."""

    root: str
    counts: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    def add(self, reason: str, folder: str, count: int = 1):
        """Counts what was skipped in a folder.

        `reason` is what it is, with `{s}` or `{ies}` for the plural, and in parentheses why.
        """
        folders = self.counts.setdefault(reason, {})
        name = printable(os.path.relpath(folder, self.root))
        folders[name] = folders.get(name, 0) + count

    def as_json(self) -> list[dict]:
        """Returns each reason with its count and folders."""
        return [
            {"what": _plural(reason, 2), "count": sum(counts.values()), "folders": list(counts)}
            for reason, counts in self.counts.items()
        ]

    def __str__(self) -> str:
        return "; ".join(
            f"{total:,} {_plural(reason, total)} in {_list_folders(counts)}"
            for reason, counts in self.counts.items()
            if (total := sum(counts.values()))
        )


class SplitContents(NamedTuple):
    """One split of a data set: `source` is a folder below the data set, or a split of TFDS."""

    source: str
    images: int
    classes: int
    names: Sequence[str] = ()  # of the classes, where they are few

    def as_json(self) -> dict:
        """Returns plain JSON values."""
        return self._asdict() | {"names": list(self.names)}

    def __str__(self) -> str:
        names = f" ({', '.join(self.names)})" if self.names else ""
        counts = f"{_count(self.images, 'image')} of {_count(self.classes, 'class')}"
        return f"{counts}{names} in {self.source}"


class Contents(NamedTuple):
    """What was found in a data set, `dataset`, which is a folder or a name."""

    dataset: str
    train: SplitContents | None
    validation: SplitContents
    skipped: Skipped
    rotated: tuple[int, int] = (0, 0)  # images that EXIF says to turn, and how many were looked at

    def as_json(self) -> dict:
        """Returns plain JSON values."""
        return {
            "dataset": self.dataset,
            "train": self.train and self.train.as_json(),
            "validation": self.validation.as_json(),
            "left_out": self.skipped.as_json(),
            "exif_turned": dict(zip(("images", "of_sampled"), self.rotated, strict=True)),
        }

    def __str__(self) -> str:
        name = Path(self.dataset).name if os.path.isabs(self.dataset) else self.dataset
        if self.train:
            splits = f"{self.train} for training, {self.validation} for validation"
        else:
            splits = f"{self.validation} for evaluation"
        text = f"data: {printable(name)}: {splits}"
        if self.skipped.counts:
            text += f"; skipped: {self.skipped}"
        rotated, sampled = self.rotated
        if rotated:
            text += (
                f"; {rotated} of {sampled} sampled images have an EXIF orientation that training "
                "ignores: turn them upright with `magick mogrify -auto-orient` (docs/data.md)"
            )
        return text


def printable(path: str) -> str:
    """Returns a name that can be printed, even if its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _plural(reason: str, count: int) -> str:
    one = count == 1
    return reason.replace("{s}", "" if one else "s").replace("{ies}", "y" if one else "ies")


def _list_folders(folders: dict[str, int]) -> str:
    names = ["the data set's folder" if name == "." else f"{name}/" for name in folders]
    shown = ", ".join(names[:_MOST_FOLDERS])
    more = len(names) - _MOST_FOLDERS
    return f"{shown} and {_count(more, 'more folder')}" if more > 0 else shown


def _count(count: int, noun: str) -> str:
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"

"""The records of a long evaluation on disk, so that one that is cut off can go on."""

import json
import shutil
from pathlib import Path

import numpy as np

from keras_googlenet.errors import UserError

_FOLDER = "evaluation.partial"


class Partial:
    """The part of an evaluation that is done, in a folder `evaluation.partial`.

    The records are rows of bytes, appended a batch at a time: what a crash leaves of a last row
    is cut away.

    Args:
        folder: Where the report will stand.
        settings: What decides the records, as JSON values; a part with others cannot go on.
        kind: Type of a record.
        resume: Whether to go on with what is there; otherwise it is thrown away.

    Raises:
        UserError: If it is to go on with a part of other settings.
    """

    def __init__(self, folder: Path, settings: dict, kind: np.dtype, resume: bool):
        self.folder = folder / _FOLDER
        self.kind = kind
        if not resume:
            self.remove()
        if self.folder.exists():
            self._check_settings(settings)
            self._cut_broken_row()
        else:
            self.folder.mkdir(parents=True)
            self._records.touch()
            self._settings.write_text(json.dumps(settings))

    @property
    def _records(self) -> Path:
        return self.folder / "records"

    @property
    def _settings(self) -> Path:
        return self.folder / "settings.json"

    def _check_settings(self, settings: dict):
        try:
            before = json.loads(self._settings.read_text())
        except (OSError, json.JSONDecodeError):
            before = {}
        now = json.loads(json.dumps(settings))  # tuples become lists, as they did before
        changed = [name for name, value in now.items() if before.get(name) != value]
        if changed:
            raise UserError(
                f"the evaluation in {self.folder} was begun with another {', '.join(changed)}; "
                "give the same again, or leave out --resume to start over."
            )

    def _cut_broken_row(self):
        whole = self._records.stat().st_size // self.kind.itemsize * self.kind.itemsize
        with open(self._records, "ab") as file:
            file.truncate(whole)

    def read(self) -> np.ndarray:
        """Returns the records so far, mapped from the disk."""
        if not self._records.stat().st_size:
            return np.empty(0, self.kind)
        return np.memmap(self._records, self.kind, mode="r")

    def append(self, records: np.ndarray):
        """Adds records of further examples."""
        with open(self._records, "ab") as file:
            file.write(records.tobytes())

    def remove(self):
        """Throws the part away, for instance when the report is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

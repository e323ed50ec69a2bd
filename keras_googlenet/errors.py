"""The errors that say what a user got wrong, or can mend."""


class UserError(ValueError):
    """One sentence: what was wrong and what to do. Scripts print it and exit with status 2."""


class WriteError(UserError):
    """A file or folder cannot be written: no room, no right, or no such place."""


class LostWorkerError(RuntimeError):
    """Another worker of the run is gone: nobody's mistake, and the same command may be retried."""

"""The errors that say what a user got wrong, or can mend."""


class UserError(ValueError):
    """One sentence: what was wrong and what to do. Scripts print it and exit with status 2."""


class WriteError(UserError):
    """A file or folder cannot be written: no room, no right, or no such place."""

"""The one kind of exception that a person is meant to read."""


class ProxSparseError(Exception):
    """Something the user can mend.

    The message is one clear sentence that names the value and the way out. The command line prints it
    and exits with code 2; the app shows it as it stands. Everything else that is raised is a bug.
    """


class CannotStreamError(ProxSparseError):
    """The weights of a model cannot stay in its files; it can be loaded whole."""


class DivergedError(ProxSparseError):
    """A loss or a gradient is no longer finite, or the weights run away."""

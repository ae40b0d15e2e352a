"""What can go wrong, as one tree under :class:`Error`.

Arguments that cannot be right (a wrong type, white space in a call-id, a port out of range) raise
:class:`TypeError` or :class:`ValueError` before anything is sent. Everything after that is an :class:`Error`.
"""

from pathlib import Path

__all__ = [
    "Closed",
    "CommandError",
    "ConnectionLost",
    "Error",
    "IdentityError",
    "Locked",
    "NotFound",
    "RecordingError",
    "StartError",
    "Timeout",
]


class Error(Exception):
    """The root of all errors of this package."""


class StartError(Error):
    """A :class:`~rtpproxy.Proxy` or :class:`~rtpproxy.Client` could not be started; the text says why."""


class CommandError(Error):
    """The relay refused a command.

    >>> from rtpproxy import CommandError
    >>> error = CommandError(72, "U call-1 0 0 a", "no ports")
    >>> error.code
    72
    >>> print(error)
    E72: no ports (U call-1 0 0 a)
    """

    def __init__(self, code: int, command: str, reason: str) -> None:
        super().__init__(code, command, reason)
        self.code = code
        """The number after ``E`` in the reply."""
        self.command = command
        """The command as text of the control protocol."""
        self.reason = reason
        """What the code means."""

    def __str__(self) -> str:
        return f"E{self.code}: {self.reason} ({self.command})"


class NotFound(CommandError):
    """No such session: code 50, and the ``0`` with which the protocol answers a lookup in vain."""


class ConnectionLost(Error, ConnectionError):
    """The relay cannot be reached, or went away before it answered."""


class Timeout(Error, TimeoutError):
    """The relay did not answer in time. Whether it carried the command out is not known."""


class Closed(Error):
    """The :class:`~rtpproxy.Proxy` or :class:`~rtpproxy.Client` is closed, or belongs to a parent process."""


class _FileError(Error):
    """Something is wrong with a file; the text begins with its path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path = Path(path)
        """The file."""
        self.reason = reason
        """What is wrong with it."""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class RecordingError(_FileError):
    """A file of a recording is damaged, or is none; the text begins with its path."""


class Locked(RecordingError):
    """A file of a recording is encrypted, and none of the identities opens it."""


class IdentityError(_FileError):
    """A file with a secret key is of no use; the text begins with its path."""

"""Recordings as they were before they were compressed and encrypted."""

import io
import shutil
from collections.abc import Sequence
from os import O_CLOEXEC, O_CREAT, O_EXCL, O_WRONLY, PathLike, fspath
from os import open as open_descriptor
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rtpproxy._rtpproxy import RecordingFile

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["decrypt", "open_recording"]

_Path: TypeAlias = str | PathLike[str]


def open_recording(path: _Path, *, identities: Sequence[_Path] = ()) -> io.BufferedReader:
    """Opens a file of a recording and gives what was recorded: pcapng, pcap or the ad-hoc format.

    It may be compressed (``.zst``, ``.gz``), encrypted (``.age``, ``.sealed``), both or neither; its first
    bytes tell. A file that is being written can be read, too, up to what is in it now; so can one of a relay
    that was killed. The memory it takes does not depend on the length of the file, and the GIL is not held
    while it is read.

    :param identities: Files with secret keys, if it is encrypted: those of ``age-keygen``, or private keys of
        ssh without a passphrase.
    :returns: A binary file that can be read once, from its beginning to its end.
    :raises OSError: The file cannot be read.
    :raises rtpproxy.IdentityError: A file with a secret key is of no use.
    :raises rtpproxy.Locked: It is encrypted, and no identity opens it.
    :raises rtpproxy.RecordingError: It is damaged. Reading raises this where the damage begins.

    >>> import gzip, rtpproxy, tempfile
    >>> with tempfile.NamedTemporaryFile(suffix=".pcapng.gz") as file:
    ...     _ = file.write(gzip.compress(b"packets"))
    ...     file.flush()
    ...     with rtpproxy.open_recording(file.name) as recording:
    ...         recording.read()
    b'packets'
    """
    return io.BufferedReader(_Raw(path, identities), _BUFFER)


def decrypt(path: _Path, to: _Path, *, identities: Sequence[_Path] = ()) -> int:
    """Writes what :func:`open_recording` gives to a new file, which only its owner can read.

    :param to: The new file. What is there stays: that is a :class:`FileExistsError`.
    :returns: Its length in bytes.
    :raises rtpproxy.Error: As :func:`open_recording` does. There is no new file then.

    >>> import gzip, rtpproxy, tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     packed, plain = Path(folder, "call.pcapng.gz"), Path(folder, "call.pcapng")
    ...     _ = packed.write_bytes(gzip.compress(b"packets"))
    ...     rtpproxy.decrypt(packed, plain), plain.read_bytes()
    (7, b'packets')
    """
    with open_recording(path, identities=identities) as recording, open(to, "xb", opener=_for_owner) as file:
        try:
            shutil.copyfileobj(recording, file, _BUFFER)
        except BaseException:
            Path(to).unlink(missing_ok=True)
            raise
        return file.tell()


class _Raw(io.RawIOBase):
    """What a :class:`io.BufferedReader` reads from."""

    def __init__(self, path: _Path, identities: Sequence[_Path]) -> None:
        if isinstance(identities, (str, PathLike)):
            raise TypeError("identities: must be a sequence of paths, not a single one")
        self.name = fspath(path)
        self._file: RecordingFile | None = RecordingFile(self.name, [fspath(file) for file in identities])

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        if self._file is None:
            raise ValueError("I/O operation on closed file.")
        with memoryview(buffer).cast("B") as view:
            read = self._file.read(len(view))
            view[: len(read)] = read
            return len(read)

    def close(self) -> None:
        # The file is closed with the last reference to it.
        self._file = None
        super().close()


def _for_owner(path: str, _flags: int) -> int:
    return open_descriptor(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)


_BUFFER = 256 << 10

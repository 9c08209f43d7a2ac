"""Write a file whole or not at all, private to its owner.

A reader sees no file, the old one or the new one, never a part; after a power cut too, since the content reaches the
disk before the name does and the directory after it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["create_file", "replace_file"]

_MODE = 0o600


def create_file(path: Path, data: bytes, token_bytes: Callable[[int], bytes]) -> bool:
    """Create `path` with `data`, mode 0600; False when there is something of that name, which stays. Raise OSError."""
    temporary = _write_temporary(path, data, token_bytes)
    try:
        try:
            os.link(temporary, path)  # fails when the name is taken; a rename would overwrite
        except FileExistsError:
            return False
        except OSError:
            # File systems without hard links (FAT, some network shares): reserve the name, then put the content in its
            # place. A crash between the two leaves an empty file, which readers refuse.
            try:
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, _MODE))
            except FileExistsError:
                return False
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    _sync_directory(path.parent)
    return True


def replace_file(path: Path, data: bytes, token_bytes: Callable[[int], bytes]) -> None:
    """Put `data` in the place of `path` in one step, mode 0600. Raise OSError, `path` being as it was."""
    temporary = _write_temporary(path, data, token_bytes)
    try:
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise
    _sync_directory(path.parent)


def _write_temporary(path: Path, data: bytes, token_bytes: Callable[[int], bytes]) -> Path:
    """Write and sync a file beside `path`, which makes link and rename atomic; remove it when that fails."""
    temporary = path.with_name(f".{path.name}.{token_bytes(8).hex()}.tmp")
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, _MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(descriptor, _MODE)  # a strange umask could have taken the owner's own rights
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _sync_directory(directory: Path) -> None:
    """Make a new name durable; a system that cannot sync directories (Windows) loses at most the new name."""
    if os.name != "posix":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        return  # some network and FUSE file systems refuse to sync a directory; the file itself is on the disk
    finally:
        os.close(descriptor)

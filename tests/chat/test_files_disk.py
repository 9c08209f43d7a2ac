"""Files on the disk: memory that is given back, and reading without a thread where that needs no waiting."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import pytest
from support.chat_fakes import until
from support.files import MiB, content, downloads, pair, reached, stop

from p2pnode.chat.files import disk, sources
from p2pnode.chat.files.wire import SEGMENT
from p2pnode.simulations.virtual import VirtualLoop

linux = pytest.mark.skipif(sys.platform != "linux", reason="where the system can do it")


def open_source(path: Path) -> sources.SourceFile:
    info = path.stat()
    return sources.SourceFile(str(path), info.st_size, info.st_mtime_ns)


def forget(path: Path) -> None:
    """Have the system read it from the disk next time."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@linux
def test_large_file_goes_to_the_disk_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 8 MiB are sent to the disk once they are written, and given back 32 MiB later; nothing else is."""
    size = 48 * MiB
    segment = content(SEGMENT)
    leaf = hashlib.sha256(segment).digest()
    advised: list[int] = []
    file = disk.PartFile(str(tmp_path / "part"), (), size, leaf * 48)

    def advise(_fd: int, at: int, count: int, how: int) -> None:
        assert (count, how) == (8 * MiB, os.POSIX_FADV_DONTNEED)
        assert at + count <= file.have
        advised.append(at // MiB)

    monkeypatch.setattr(os, "posix_fadvise", advise)  # what the system is told
    for _ in range(48):
        file.write(segment)
    file.close()
    assert advised == [0, 8, 16, 24, 32, 0, 40, 8]


@linux
def test_what_is_in_memory_is_read_without_a_thread(tmp_path: Path) -> None:
    """All of it, up to the end; what was changed meanwhile is refused."""
    path = tmp_path / "x"
    path.write_bytes(content(MiB + 5))
    source = open_source(path)
    buffer = memoryview(bytearray(MiB))
    assert source.read_nowait(0, buffer) == MiB
    assert bytes(buffer) == content(MiB + 5)[:MiB]
    assert source.read_nowait(MiB, buffer) == 5
    assert source.read_nowait(MiB + 5, buffer) == 0
    with path.open("r+b") as file:
        file.write(b"other")
    with pytest.raises(sources.SourceError) as caught:
        source.read_nowait(0, buffer)
    assert caught.value.code == "changed"
    source.close()


@linux
@pytest.mark.slow
def test_file_that_is_not_in_memory_arrives(tmp_path: Path) -> None:
    """What the disk has to be waited for is read by a thread: the bytes are the same."""

    async def main() -> None:
        alice, bob = await pair(tmp_path, auto=100 * MiB)
        (tmp_path / "x").write_bytes(content(5 * MiB + 7))
        whole = sources.leaves_of

        def leaves_of(path: str, size: int, stamp: int, first: int, count: int) -> bytes:
            leaves = whole(path, size, stamp, first, count)
            forget(Path(path))
            return leaves

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sources, "leaves_of", leaves_of)  # the system's memory, nothing of ours
            await alice.chat.files.send(bob.node.user_id, str(tmp_path / "x"))
            await until(alice, reached(alice, "x", "done"))
        assert downloads(tmp_path / "b") == {"x": content(5 * MiB + 7)}
        await stop(alice, bob)

    VirtualLoop().run(main())

"""Disks that go wrong, mounted for a test: small ones, ones that give I/O errors, ones that turn read-only.

Root alone may mount, and not in every container: there the tests that need it are skipped by name.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

MB = 1 << 20


def _run(*command: str | Path) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs root that may mount: {getattr(error, 'stderr', error)}")


@contextmanager
def _mounted(folder: Path, *options: str | Path) -> Iterator[Path]:
    folder.mkdir(parents=True)
    _run("mount", *options, folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A file system in memory."""

    folder: Path

    def resize(self, octets: int) -> None:
        """Make it larger or smaller while it is in use."""
        _run("mount", "-o", f"remount,size={octets}", self.folder)

    def fill(self) -> None:
        """Take every octet that is left, with a file that is not ours."""
        with (self.folder / "filler").open("ab", buffering=0) as filler:
            for step in (MB, 4096):
                try:
                    while filler.write(b"\0" * step) == step:
                        pass
                except OSError:
                    continue

    def clear(self) -> None:
        """Give back what `fill` took."""
        (self.folder / "filler").unlink()


@contextmanager
def small_disk(folder: Path, octets: int) -> Iterator[SmallDisk]:
    """A disk of that size at `folder`, which must not exist."""
    with _mounted(folder, "-t", "tmpfs", "-o", f"size={octets}", "none"):
        yield SmallDisk(folder)


@dataclass(frozen=True, slots=True)
class BadDisk:
    """A file system on a device that gives I/O errors for what is written, until `mend`."""

    folder: Path
    _behind: SmallDisk
    _image: Path

    def mend(self) -> None:
        """What is written from now on is kept."""
        self._behind.resize(400 * MB)

    def abort(self) -> None:
        """The kernel finds the file system broken and turns it read-only, as after an error on a real disk."""
        _run("mount", "-o", "remount,abort", self.folder)

    def repair(self) -> None:
        """What an administrator does then, while nobody uses it: check the disk and mount it again."""
        _run("umount", self.folder)
        subprocess.run(["e2fsck", "-p", self._image], check=False, capture_output=True)
        _run("mount", "-o", "loop", self._image, self.folder)


@contextmanager
def bad_disk(folder: Path, good_octets: int, kind: str = "ext2") -> Iterator[BadDisk]:
    """A disk of which so much can be written before every write fails with EIO. `ext4` has a journal."""
    with ExitStack() as stack:
        behind = stack.enter_context(small_disk(folder / "behind", good_octets))
        image = behind.folder / "image"
        with image.open("wb") as file:
            os.truncate(file.fileno(), 300 * MB)
        _run(f"mkfs.{kind}", "-q", "-F", image)
        disk = stack.enter_context(_mounted(folder / "disk", "-o", "loop", image))
        yield BadDisk(disk, behind, image)

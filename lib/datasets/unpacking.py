"""From archives to the layout that was published: whole or not at all, and no more than the set has."""

import gzip
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from lib.files import atomic_write, write_json

CHUNK = 2**20  # bytes
BLOCK = 4_096  # bytes that a file takes on the disk at least

# What damage to an archive, two members of one name in it, or a member in cipher can lead to.
UNREADABLE = (
    *(tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, ValueError),
    *(FileExistsError, NotADirectoryError, RuntimeError),
)


def unpack(archives: Mapping[Path, tuple[str, int]], root: Path, record: dict[str, Any]) -> None:
    """Unpack into a folder beside ``root``, and put the folder in it that holds the marks in the place of ``root``.

    Of each archive the mark, a file or folder in it, and the bytes that it and its files take are expected. Contents
    alone are written, of regular files: no links, owners or modes, and no more than the set has.
    """
    with atomic_write(root) as aside:
        unpacked = aside.with_name(f"{root.name}.unpacked").resolve()
        unpacked.mkdir()
        for archive, (mark, space) in archives.items():
            with whole(archive):
                if archive.stem == mark:  # named after the one file in it
                    unpack_file(archive, unpacked / mark, space)
                else:
                    unpack_tar(archive, unpacked, space)
                marked = sorted(unpacked.rglob(mark), key=lambda path: len(path.parts))
                if not marked:
                    raise ValueError(f"there is no {mark!r} in it")
        layout = marked[0].parent
        write_json(layout / "download.json", record)
        os.replace(layout, aside)


@contextmanager
def whole(archive: Path) -> Iterator[None]:
    """Raise ``ValueError`` that names the archive and what to do where it turns out to be damaged, or another."""
    try:
        yield
    except UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{archive} is not a whole archive of this set ({reason}), and nothing was unpacked: delete it, run again"
        ) from error


def unpack_tar(archive: Path, folder: Path, space: int) -> None:
    """Write the files of a tar, which take no more than ``space`` bytes with the archive itself."""
    left = space - archive.stat().st_size
    with tarfile.open(archive) as members:
        for member in tqdm(members, desc=f"unpacking {archive.name}", unit="file"):
            target = (folder / member.name).resolve()
            if not target.is_relative_to(folder) or not (member.isfile() or member.isdir()):
                raise tarfile.TarError(f"{member.name!r} is a link, a device or outside of the set's folder")
            left -= member.size + BLOCK
            if left < 0:
                raise too_large(space)
            if member.isfile():
                target.parent.mkdir(parents=True, exist_ok=True)
                with members.extractfile(member) as content, target.open("xb") as file:
                    shutil.copyfileobj(content, file)


def unpack_file(archive: Path, target: Path, space: int) -> None:
    """Write the only file of a ZIP or a gzip, as ``unpack_tar`` does: a gzip does not say how large it is."""
    left = space - archive.stat().st_size
    bar = tqdm(desc=f"unpacking {archive.name}", unit="B", unit_scale=True)
    with bar as progress, only_content(archive, target.name) as content, target.open("xb") as file:
        while chunk := content.read(CHUNK):
            left -= len(chunk)
            if left < 0:
                raise too_large(space)
            file.write(chunk)
            progress.update(len(chunk))


@contextmanager
def only_content(archive: Path, name: str) -> Iterator[IO[bytes]]:
    """Open the one file that a ZIP or a gzip holds. Raises ``ValueError`` where a ZIP holds others, or another name."""
    if archive.suffix == ".gz":
        with gzip.open(archive) as content:
            yield content
        return
    with zipfile.ZipFile(archive) as members:
        names = members.namelist()
        if names != [name]:
            raise ValueError(f"it holds {', '.join(map(repr, names[:3])) or 'nothing'} and not {name!r} alone")
        with members.open(name) as content:
            yield content


def too_large(space: int) -> ValueError:
    return ValueError(f"it takes more than the {space / 1e9:.2g} GB that the set has")

"""Bring the published sets onto the disk: fetched, checked against their checksums, unpacked whole or not at all."""

import errno
import gzip
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from uuid import uuid4

import pooch
import requests
from tqdm import tqdm


class Source(NamedTuple):
    """Where a set comes from and how to know it.

    `folders` are web folders with the same archive, tried in turn. `checksum` is "<algorithm>:<digest>", or the
    name of the publisher's list of MD5 sums in the same folder. `mark` is a file or folder at the top of the set's
    own layout; `space` what the archive and its files take on the disk, in bytes.
    """

    folders: tuple[str, ...]
    remote_name: str
    archive: str
    checksum: str
    mark: str
    space: int


SOURCES = {
    "hd": Source(
        folders=("https://zenkelab.org/datasets/", "https://compneuro.net/datasets/"),
        remote_name="hd_audio.tar.gz",
        archive="hd_audio.tar.gz",
        checksum="md5sums.txt",
        mark="train_filenames.txt",
        space=4_000_000_000,  # a bound: 10,420 utterances of at most 2 s would take 2 GB uncompressed
    ),
    "sc": Source(
        folders=("https://storage.googleapis.com/download.tensorflow.org/data/",),
        remote_name="speech_commands_v0.02.tar.gz",
        archive="speech_commands_v0.02.tar.gz",
        checksum="sha256:af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58",
        mark="validation_list.txt",
        space=6_500_000_000,
    ),
    "fsdd": Source(
        folders=("https://github.com/Jakobovski/free-spoken-digit-dataset/archive/",),
        remote_name="v1.0.9.tar.gz",
        archive="free-spoken-digit-dataset-1.0.9.tar.gz",
        checksum="sha256:8bc44cde129d505cbbb6b365c09f80c663f2aa77578afc634e6141a2f87100c0",
        mark="recordings",
        space=60_000_000,
    ),
}


def fetch(name: str, root: str | Path) -> Path:
    """Put the set's own layout directly under `root`, unless it is there, and return `root`.

    The archive lies beside `root` until the set is whole, so that a failed unpacking does not cost the download,
    and is then deleted; `root/download.json` keeps where it came from and its checksum.

    Raises:
        ValueError: if the name is unknown, `root` holds something else, or the archive is not what was published.
        ConnectionError: if no server gives the archive.
        OSError: if the disk has not room enough.
    """
    if name not in SOURCES:
        raise ValueError(f"No set called {name!r} can be downloaded; those that can are {', '.join(SOURCES)}.")
    source, root = SOURCES[name], Path(root)
    if (root / source.mark).exists():
        return root
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"{root} is there but does not hold {name!r}; give an empty folder or one yet to be made.")
    root.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root.parent).free
    if free < source.space:
        raise OSError(
            errno.ENOSPC,
            f"{name!r} needs {source.space / 1e9:.2g} GB on the disk of {root.parent}, where "
            f"{free / 1e9:.2g} GB are free; make room or give another folder",
        )
    try:
        archive, record = download(name, source, root.parent)
        unpack(archive, root, source.mark, {"name": name, **record})
    except OSError as error:
        if error.errno == errno.ENOSPC:
            message = f"The disk of {root.parent} is full; {name!r} was not placed: make room and run again"
            raise OSError(errno.ENOSPC, message) from error
        raise
    archive.unlink()
    return root


def download(name: str, source: Source, folder: Path) -> tuple[Path, dict[str, str]]:
    """The archive, fetched into `folder` unless it lies there whole, and its address and checksum."""
    pooch.get_logger().setLevel("WARNING")
    refusals = []
    for web_folder in source.folders:
        url = web_folder + source.remote_name
        try:
            checksum = source.checksum
            if ":" not in checksum:
                checksum = published_md5(web_folder + source.checksum, source.remote_name)
            retriever = pooch.HTTPDownloader(progressbar=True, chunk_size=2**20)
            path = pooch.retrieve(url, checksum, fname=source.archive, path=folder, downloader=retriever)
            return Path(path), {"url": url, "checksum": checksum}
        except requests.RequestException as error:
            refusals.append(f"{url}: {error}")
        except ValueError as error:
            raise ValueError(
                f"{url} is not the published archive of {name!r} ({error}); nothing was kept: run again, and if "
                "it stays so, see data/README.md for placing the set by hand."
            ) from error
    raise ConnectionError(
        f"{name!r} cannot be downloaded ({'; '.join(refusals)}); check the network and run again, or place the set "
        "by hand (data/README.md says how)."
    )


def published_md5(url: str, file_name: str) -> str:
    """The MD5 sum of a file in the publisher's list, whose lines are "<sum>  <file name>"."""
    with TemporaryDirectory() as folder:
        lines = Path(pooch.retrieve(url, None, fname="sums", path=folder)).read_text(encoding="utf-8").splitlines()
    for line in lines:
        digest, _, listed = line.partition(" ")
        if listed.strip().lstrip("*") == file_name:
            return f"md5:{digest}"
    raise ValueError(f"{url} does not list {file_name}")


def unpack(archive: Path, root: Path, mark: str, record: dict[str, str]) -> None:
    """Unpack into a folder beside `root`, and put the folder in it that holds `mark` in the place of `root`.

    Contents alone are written, of regular files: no links, owners or modes.
    """
    with TemporaryDirectory(dir=root.parent, prefix=f".{root.name}.") as folder:
        unpacked = Path(folder, "unpacked").resolve()
        unpacked.mkdir()
        try:
            with tarfile.open(archive) as members:
                for member in tqdm(members, desc=f"unpacking {archive.name}", unit="file"):
                    target = (unpacked / member.name).resolve()
                    if not target.is_relative_to(unpacked) or not (member.isfile() or member.isdir()):
                        raise ValueError(
                            f"{archive} holds {member.name!r}, which is a link, a device or outside of the set's "
                            "folder; nothing was unpacked: delete the archive and run again."
                        )
                    if member.isfile():
                        target.parent.mkdir(parents=True, exist_ok=True)
                        with members.extractfile(member) as content, target.open("wb") as file:
                            shutil.copyfileobj(content, file)
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(
                f"{archive} is not a whole archive ({error}); nothing was unpacked: delete it and run again."
            ) from error
        marked = sorted(unpacked.rglob(mark), key=lambda path: len(path.parts))
        if not marked:
            raise ValueError(f"{archive} does not hold {mark!r}; it is another archive than this set's: delete it.")
        layout = marked[0].parent
        (layout / "download.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        with written_aside(root) as aside:
            os.replace(layout, aside)


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary path in the same folder that takes `path`'s place if, and only if, the block ends well.

    The block makes a file or a folder there; a folder takes the place of an empty one at most.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        yield aside
        if path.is_dir():
            path.rmdir()
        os.replace(aside, path)
    finally:
        if aside.is_dir():
            shutil.rmtree(aside)
        aside.unlink(missing_ok=True)

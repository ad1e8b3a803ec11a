"""Bring the published sets onto the disk: fetched, checked against their checksums, unpacked whole or not at all."""

import gzip
import hashlib
import json
import os
import shutil
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

import requests
from tqdm import tqdm

from lib.files import FULL, alone, check_space, telling, written_aside


class Source(NamedTuple):
    """Where a set comes from and how to know it.

    `folders` are web folders with the same archive, tried in turn. `checksum` is "<algorithm>:<digest>", or the
    name of the publisher's list of MD5 sums in the same folder. `mark` is a file or folder at the top of the set's
    own layout; `space` a bound on what the archive and its files take on the disk, in bytes.
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
        space=4_000_000_000,  # 10,420 utterances of at most 2 s would take 2 GB uncompressed
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

TIMEOUT = 30  # seconds without a byte
CHUNK = 2**16  # bytes
BLOCK = 4_096  # bytes that a file takes on the disk at least

# What damage to an archive, or two members of one name in it, can lead to.
UNREADABLE = (
    *(tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, ValueError),
    *(FileExistsError, NotADirectoryError),
)


def fetch(name: str, root: str | Path) -> Path:
    """Put the set's own layout directly under `root`, unless it is there, and return `root`.

    The archive lies beside `root` until the set is whole, so that a failed unpacking does not cost the download,
    and is then deleted; `root/download.json` keeps where it came from and its checksum. A download that was
    interrupted goes on from where it ended; a second process that wants the same set waits for the first.

    Raises:
        ValueError: if the name is unknown, `root` holds something else, or the archive is not what was published.
        ConnectionError: if no server gives the whole archive.
        OSError: if the disk has not room enough, or a folder cannot be written to.
    """
    if name not in SOURCES:
        raise ValueError(f"No set called {name!r} can be downloaded; those that can are {', '.join(SOURCES)}.")
    source, root = SOURCES[name], Path(root)
    archive = root.with_name(source.archive)
    if (root / source.mark).exists():
        return root
    with alone(archive), alone(root):
        if (root / source.mark).exists():
            return root
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise ValueError(f"{root} is there but does not hold {name!r}; give an empty folder or one yet to be made.")
        arrived = sum(path.stat().st_size for path in (archive, part_of(archive)) if path.is_file())
        check_space(repr(name), source.space - arrived, root.parent)
        record = download(name, source, archive)
        unpack(archive, root, source, {"name": name, **record})
        archive.unlink()
    return root


def download(name: str, source: Source, archive: Path) -> dict[str, str]:
    """Fetch the archive unless it is there, and check it; its address and checksum."""
    refusals, part = [], part_of(archive)
    for web_folder in source.folders:
        url = web_folder + source.remote_name
        try:
            checksum = source.checksum
            if ":" not in checksum:
                checksum = published_md5(web_folder + source.checksum, source.remote_name)
            if not archive.exists():
                with telling(archive.parent, FULL):
                    receive(url, part)
        except requests.RequestException as error:
            refusals.append(f"{url} {reason(error)}")
            continue
        if not archive.exists():
            if not matches(part, checksum):
                part.unlink()
                raise ValueError(
                    f"{url} is not the published archive of {name!r}: its checksum is not {checksum}; nothing was "
                    "kept: run again, and if it stays so, see data/README.md for placing the set by hand."
                )
            os.replace(part, archive)
        elif not archive.is_file() or not matches(archive, checksum):
            raise ValueError(
                f"{archive} is not the published archive of {name!r}: its checksum is not {checksum}; delete it, and "
                "it is fetched anew."
            )
        return {"url": url, "checksum": checksum}
    raise ConnectionError(
        f"{name!r} cannot be downloaded ({'; '.join(refusals)}); check the network and run again, which goes on with "
        "what has arrived, or place the set by hand (data/README.md says how)."
    )


def part_of(archive: Path) -> Path:
    """Where the archive's bytes lie until it is whole and checked."""
    return archive.with_name(f"{archive.name}.part")


def receive(url: str, part: Path) -> None:
    """Fetch into `part`, from where it ends if the server can and from the start if not.

    A transfer that breaks is begun again as long as each brings the end nearer; else requests.RequestException.
    """
    while True:
        arrived = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={arrived}-"} if arrived else {})
        try:
            with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
                if arrived and response.status_code == requests.codes.requested_range_not_satisfiable:
                    return  # nothing comes after what is there; the checksum tells whether it is the archive
                response.raise_for_status()
                begun = arrived if response.status_code == requests.codes.partial_content else 0
                length = int(response.headers.get("Content-Length", 0))
                bar = tqdm(desc=part.stem, total=begun + length or None, initial=begun, unit="B", unit_scale=True)
                with part.open("ab" if begun else "wb") as file, bar as progress:
                    for chunk in response.iter_content(CHUNK):
                        file.write(chunk)
                        progress.update(len(chunk))
            return
        except requests.RequestException:
            if not part.exists() or part.stat().st_size <= arrived:
                raise


def reason(error: requests.RequestException) -> str:
    """What went wrong with a request, in a few words."""
    if isinstance(error, requests.HTTPError):
        return f"answers {error.response.status_code} {error.response.reason}"
    words = {
        requests.exceptions.SSLError: "has a certificate that is not trusted here",
        requests.Timeout: "does not answer",
        requests.ConnectionError: "cannot be reached",
    }
    return next((said for kind, said in words.items() if isinstance(error, kind)), "breaks off before the end")


def published_md5(url: str, file_name: str) -> str:
    """The MD5 sum of a file in the publisher's list, whose lines are "<sum>  <file name>"."""
    response = requests.get(url, timeout=TIMEOUT)
    response.raise_for_status()
    for line in response.text.splitlines():
        digest, _, listed = line.partition(" ")
        if listed.strip().lstrip("*") == file_name:
            return f"md5:{digest}"
    raise ValueError(
        f"{url} does not list {file_name}, so the archive cannot be checked; see data/README.md for placing the set "
        "by hand."
    )


def matches(path: Path, checksum: str) -> bool:
    """Whether the file has the checksum "<algorithm>:<digest>"."""
    algorithm, _, digest = checksum.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == digest.lower()


def unpack(archive: Path, root: Path, source: Source, record: dict[str, str]) -> None:
    """Unpack into a folder beside `root`, and put the folder in it that holds the mark in the place of `root`.

    Contents alone are written, of regular files: no links, owners or modes, and no more than the set has.
    """

    left = source.space - archive.stat().st_size
    with written_aside(root) as aside:
        unpacked = aside.with_name(f"{root.name}.unpacked").resolve()
        unpacked.mkdir()
        try:
            with tarfile.open(archive) as members:
                for member in tqdm(members, desc=f"unpacking {archive.name}", unit="file"):
                    target = (unpacked / member.name).resolve()
                    if not target.is_relative_to(unpacked) or not (member.isfile() or member.isdir()):
                        raise tarfile.TarError(f"{member.name!r} is a link, a device or outside of the set's folder")
                    left -= member.size + BLOCK
                    if left < 0:
                        raise tarfile.TarError(f"it takes more than the {source.space / 1e9:.2g} GB that the set has")
                    if member.isfile():
                        target.parent.mkdir(parents=True, exist_ok=True)
                        with members.extractfile(member) as content, target.open("xb") as file:
                            shutil.copyfileobj(content, file)
            marked = sorted(unpacked.rglob(source.mark), key=lambda path: len(path.parts))
            if not marked:
                raise tarfile.TarError(f"there is no {source.mark!r} in it")
        except UNREADABLE as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{archive} is not a whole archive of this set ({reason}); nothing was unpacked: delete it, run again."
            ) from error
        layout = marked[0].parent
        (layout / "download.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        os.replace(layout, aside)

"""Bring the published sets onto the disk: fetched, checked against their checksums, unpacked whole or not at all."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import requests
from tqdm import tqdm

from lib.datasets.unpacking import unpack
from lib.files import FULL, check_space, exclusive, explaining_os_errors

TIMEOUT = 30  # seconds without a byte
CHUNK = 2**16  # bytes


class Source(NamedTuple):
    """Where an archive comes from and how to know it.

    ``folders`` are web folders with the same archive, tried in turn; ``archive`` is its name here, and there unless
    ``remote_name`` says otherwise. ``checksum`` is "<algorithm>:<digest>", or the name of the publisher's list of MD5
    sums in the same folder. ``mark`` is a file or folder at the top of the set's own layout that is in this archive;
    ``space`` a bound on what the archive and its files take on the disk, in bytes.
    """

    folders: tuple[str, ...]
    archive: str
    checksum: str
    mark: str
    space: int
    remote_name: str = ""


def fetch(name: str, sources: Sequence[Source], root: Path) -> None:
    """Put the set's own layout directly under ``root``, unless it is there.

    Archives lie beside ``root`` until the set is whole, so that a failed unpacking does not cost the download, and are
    then deleted; ``root/download.json`` keeps where they came from and their checksums. A download that was
    interrupted goes on from where it ended; a second process that wants the same set waits for the first.

    Raises ``ValueError`` if ``root`` holds something else or the archive is not what was published,
    ``ConnectionError`` if no server gives the whole archive, ``OSError`` if the disk has not room enough or a folder
    cannot be written to.
    """
    archives = {root.with_name(source.archive): source for source in sources}

    def is_there() -> bool:
        return all((root / source.mark).exists() for source in sources)

    if is_there():
        return
    with ExitStack() as locks:
        for path in (*archives, root):
            locks.enter_context(exclusive(path))
        if is_there():
            return
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise ValueError(f"{root} is there but does not hold {name!r}: give an empty folder or one yet to be made")
        arrived = sum(path.stat().st_size for a in archives for path in (a, part_of(a)) if path.is_file())
        check_space(repr(name), sum(source.space for source in sources) - arrived, root.parent)
        records = [download(name, source, archive) for archive, source in archives.items()]
        record = records[0] if len(records) == 1 else {"archives": records}
        expected = {archive: (source.mark, source.space) for archive, source in archives.items()}
        unpack(expected, root, {"name": name, **record})
        for archive in archives:
            archive.unlink()


def download(name: str, source: Source, archive: Path) -> dict[str, str]:
    """Fetch the archive unless it is there, and check it. Return its address and checksum."""
    refusals, part, remote_name = [], part_of(archive), source.remote_name or source.archive
    for web_folder in source.folders:
        url = web_folder + remote_name
        try:
            checksum = source.checksum
            if ":" not in checksum:
                checksum = published_md5(web_folder + source.checksum, remote_name)
            if not archive.exists():
                with explaining_os_errors(archive.parent, FULL):
                    receive(url, part)
        except requests.RequestException as error:
            refusals.append(f"{url} {reason(error)}")
            continue
        if not archive.exists():
            if not matches(part, checksum):
                part.unlink()
                raise ValueError(
                    f"{url} is not the published archive of {name!r}, its checksum is not {checksum}, and nothing was "
                    "kept: run again, and if it stays so, see data/README.md for placing the set by hand"
                )
            os.replace(part, archive)
        elif not archive.is_file() or not matches(archive, checksum):
            raise ValueError(
                f"{archive} is not the published archive of {name!r}, its checksum is not {checksum}: delete it, and "
                "it is fetched anew"
            )
        return {"url": url, "checksum": checksum}
    raise ConnectionError(
        f"{name!r} cannot be downloaded ({'; '.join(refusals)}): check the network and run again, which goes on with "
        "what has arrived, or place the set by hand (data/README.md says how)"
    )


def part_of(archive: Path) -> Path:
    """Where the archive's bytes lie until it is whole and checked."""
    return archive.with_name(f"{archive.name}.part")


def receive(url: str, part: Path) -> None:
    """Fetch into ``part``, from where it ends if the server can and from the start if not.

    A transfer that breaks is begun again as long as each brings the end nearer; else ``requests.RequestException``.
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
    """Look up the MD5 sum of a file in the publisher's list, whose lines are "<sum>  <file name>"."""
    response = requests.get(url, timeout=TIMEOUT)
    response.raise_for_status()
    for line in response.text.splitlines():
        digest, _, listed = line.partition(" ")
        if listed.strip().lstrip("*") == file_name:
            return f"md5:{digest}"
    raise ValueError(
        f"{url} does not list {file_name}, so the archive cannot be checked: see data/README.md for placing the set "
        "by hand"
    )


def matches(path: Path, checksum: str) -> bool:
    """Whether the file has the checksum "<algorithm>:<digest>"."""
    algorithm, _, digest = checksum.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == digest.lower()

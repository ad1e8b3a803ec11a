"""Bring the published sets onto the disk: fetched, checked against their checksums, unpacked whole or not at all."""

import gzip
import hashlib
import os
import tarfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any, NamedTuple

import requests
from tqdm import tqdm

from lib.files import FULL, atomic_write, check_space, exclusive, explaining_os_errors, place_of, write_json

TIMEOUT = 30  # seconds without a byte
CHUNK = 2**16  # bytes
BLOCK = 4_096  # bytes that a file takes on the disk at least


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

    def is_there() -> bool:
        return all((root / source.mark).exists() for source in sources)

    if is_there():
        return
    # A link leads to where there is room for archives, too; one that was placed beside the link is taken from there.
    link, root = root, place_of(root)
    archives = {}
    for source in sources:
        placed = link.with_name(source.archive)
        archives[placed if placed.exists() else root.with_name(source.archive)] = source
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
        unpack(archives, root, {"name": name} | (records[0] if len(records) == 1 else {"archives": records}))
        for archive in archives:
            archive.unlink()


def download(name: str, source: Source, archive: Path) -> dict[str, str]:
    """Fetch the archive unless it is there, and check it. Return its address and checksum."""
    refusals, remote_name = [], source.remote_name or source.archive
    arrived = archive if archive.exists() else part_of(archive)
    for web_folder in source.folders:
        url, checksum = web_folder + remote_name, source.checksum
        try:
            if ":" not in checksum:
                checksum = published_md5(web_folder + checksum, remote_name)
            if arrived != archive:
                with explaining_os_errors(archive.parent, FULL):
                    receive(url, arrived)
        except requests.RequestException as error:
            refusals.append(f"{url} {reason(error)}")
            continue
        if arrived.is_file() and matches(arrived, checksum):
            os.replace(arrived, archive)
            return {"url": url, "checksum": checksum}
        remedy = ": delete it, and it is fetched anew"
        if arrived != archive:
            arrived.unlink()
            remedy = ", and nothing was kept: run again, and if it stays so, see data/README.md for placing it by hand"
        raise ValueError(
            f"{archive if arrived == archive else url} is not the published archive of {name!r}, its checksum is not "
            f"{checksum}{remedy}"
        )
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


def unpack(archives: Mapping[Path, Source], root: Path, record: dict[str, Any]) -> None:
    """Unpack into a folder beside ``root``, and put the folder in it that holds the marks in the place of ``root``.

    Raises ``ValueError`` that names the archive and what to do where it turns out to be damaged, or another.
    """
    with atomic_write(root) as aside:
        unpacked = aside.with_name(f"{root.name}.unpacked").resolve()
        unpacked.mkdir()
        for archive, source in archives.items():
            try:
                write_members(archive, unpacked, source)
                marked = sorted(unpacked.rglob(source.mark), key=lambda path: len(path.parts))
                if not marked:
                    raise ValueError(f"there is no {source.mark!r} in it")
            except Exception as error:  # damage, two members of one name or one in cipher can lead to any
                if isinstance(error, PermissionError) or getattr(error, "errno", None) in FULL:
                    raise
                raise ValueError(
                    f"{archive} is not a whole archive of this set ({' '.join(str(error).split())}), and nothing was "
                    "unpacked: delete it, run again"
                ) from error
        layout = marked[0].parent
        write_json(layout / "download.json", record)
        os.replace(layout, aside)


def write_members(archive: Path, folder: Path, source: Source) -> None:
    """Write the contents of an archive's files, which take no more than ``source.space`` with the archive itself.

    Contents alone: no links, owners or modes. No header is relied on, and a gzip has none that says how large it is.
    """
    left = source.space - archive.stat().st_size
    with tqdm(desc=f"unpacking {archive.name}", unit="B", unit_scale=True) as progress:
        for name, content in members(archive, source.mark):
            target = (folder / name).resolve()
            if not target.is_relative_to(folder) or content is None:
                raise ValueError(f"{name!r} is a link, a device or outside of the set's folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            left -= BLOCK
            with target.open("xb") as file:
                while left >= 0 and (chunk := content.read(CHUNK)):
                    left -= len(chunk)
                    file.write(chunk)
                    progress.update(len(chunk))
            if left < 0:
                raise ValueError(f"it takes more than the {source.space / 1e9:.2g} GB that the set has")


def members(archive: Path, mark: str) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Yield the name and the content of each file in an archive; of what is neither file nor folder there is none.

    An archive named after its mark is a ZIP or gzip of that one file. Raises ``ValueError`` where a ZIP holds others.
    """
    if archive.stem != mark:
        with tarfile.open(archive) as tar:
            yield from ((one.name, tar.extractfile(one) if one.isfile() else None) for one in tar if not one.isdir())
    elif archive.suffix == ".gz":
        with gzip.open(archive) as content:
            yield mark, content
    else:
        with zipfile.ZipFile(archive) as packed:
            if (names := packed.namelist()) != [mark]:
                raise ValueError(f"it holds {', '.join(map(repr, names[:3])) or 'nothing'} and not {mark!r} alone")
            with packed.open(mark) as content:
                yield mark, content

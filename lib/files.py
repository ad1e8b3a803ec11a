"""Atomic writes, exclusive locks, and one sentence where the disk or a file is not as it should be."""

import errno
import getpass
import glob
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from filelock import FileLock, SoftFileLock, Timeout

# What the system may refuse in a folder, by error number, in words.
ROOM = "the disk of {} is full, or your share of it; make room and run again"
NO_LOCKS = "the disk of {} does not know locks; give a folder of another, or mount it with locks (Lustre: -o flock)"
FULL = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), ROOM)
WITHOUT_LOCKS = dict.fromkeys((errno.ENOLCK, errno.EOPNOTSUPP), NO_LOCKS)
IN_THE_WAY = FULL | {
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "{} cannot be written to; give another folder"),
    **dict.fromkeys((errno.EEXIST, errno.ENOTDIR), "{} is no folder; move away what is there, or give another folder"),
}


def check_space(what: str, needed: int, folder: Path) -> None:
    """Raises ``OSError`` unless the disk of ``folder``, which may be yet to be made, has ``needed`` bytes free."""
    existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free
    if free < needed:
        needs = f"{what}: {needed / 1e9:.2g} GB are needed on the disk of {folder}, where {free / 1e9:.2g} GB are free"
        raise OSError(errno.ENOSPC, f"{needs}; make room or give another folder")


def place_of(path: Path) -> Path:
    """Where ``path`` really lies: what is made in its place is made there, and no link to it is replaced.

    Raises ``OSError`` where a link leads nowhere, and for a disk's own folder, which nothing can take the place of.
    """
    place = Path(os.path.realpath(path))
    for link in (path, *path.parents):
        leads_to = Path(os.path.realpath(link))
        if link.is_symlink() and (leads_to.is_symlink() or not leads_to.parent.is_dir()):
            said = f"{link} is a link to {os.readlink(link)}, for which there is no folder; make one or delete the link"
            raise FileNotFoundError(errno.ENOENT, said)
    if place.is_mount():
        raise OSError(errno.EBUSY, f"{path} is a disk's own folder; give one in it, such as {path / 'data'}")
    return place


@contextmanager
def exclusive(path: Path, refusal: str | None = None) -> Iterator[None]:
    """Hold an exclusive lock, which dies with its process, on the making of ``path`` until the block is done.

    Other processes wait, since what they wait for is what they want; where it is not, ``refusal`` says so: they get a
    ``RuntimeError`` with these words. What a killed process left of an atomic write is deleted.
    """
    if not path.is_file():  # whose target can lie where nothing can be written
        path = place_of(path)
    # One for each path, and let go of entirely: an interruption can leave it held, and a notebook runs its cell again.
    lock = FileLock(path.with_name(f".{path.name}.lock"), is_singleton=True)
    with explaining_os_errors(path.parent, IN_THE_WAY | WITHOUT_LOCKS):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            if refusal:
                raise RuntimeError(refusal + abandoned(lock)) from None
            said = f"Another process is making {path}; this one waits for it{abandoned(lock)}."
            print(said, file=sys.stderr, flush=True)
            lock.acquire()
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                Path(lock.lock_file).unlink(missing_ok=True)  # which nobody holds, there
            raise
    try:
        for left in (*path.parent.glob(f".{glob.escape(path.name)}.*.aside"), *path.glob(".*.aside")):
            shutil.rmtree(left)
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # whoever waits sees that it has no name, and makes another
        lock.release(force=True)


def abandoned(lock: FileLock | SoftFileLock) -> str:
    """Where the lock is a file, which outlives its process, for want of the system's locks: what to do then."""
    if not isinstance(lock, SoftFileLock):
        return ""
    with suppress(OSError, ValueError):
        process, host = Path(lock.lock_file).read_text(encoding="utf-8").split()[:2]
        return f"; should process {process} on {host} be no more, delete {lock.lock_file}"
    return f"; should there be none, delete {lock.lock_file}"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path of the same name that takes the place of ``path`` if, and only if, the block ends well.

    The block makes a file or a folder there, and beside it what it needs meanwhile; a folder takes the place of an
    empty one at most. Raises ``OSError`` that says what to do where the disk is full or ``path`` cannot be written.
    """
    path = place_of(path)
    with explaining_os_errors(path.parent, IN_THE_WAY):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=".aside")
    with folder, explaining_os_errors(path.parent, FULL):
        aside = Path(folder.name, path.name)
        yield aside
        if path.is_dir():
            if any(path.iterdir()):
                raise OSError(errno.ENOTEMPTY, f"{path} is a folder that is not empty; move it away and run again")
            path.rmdir()
        os.replace(aside, path)


@contextmanager
def explaining_os_errors(folder: Path, words: dict[int, str]) -> Iterator[None]:
    """Put the system's refusals in ``folder`` into ``words``, by error number; an ``OSError`` still names its file."""
    try:
        yield
    except OSError as error:
        if error.errno not in words:
            raise
        raise OSError(error.errno, words[error.errno].format(folder), error.filename) from error


@contextmanager
def or_damaged(path: Path, remedy: str) -> Iterator[None]:
    """Raises ``ValueError`` that names ``path`` and the ``remedy`` where the block finds it missing or malformed."""
    try:
        yield
    except BlockingIOError:  # whole, but in use
        raise
    except Exception as error:  # damaged bytes can lead to any
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(f"{path} is damaged or missing ({reason}); {remedy}") from error


def write_json(path: Path, content: dict | list) -> None:
    """Write ``content`` to ``path``, whole or not at all."""
    with atomic_write(path) as aside:
        aside.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def writable(folder: Path, instead: str | Path | None) -> Path:
    """The folder; where it cannot be written, one of its name in the folder ``instead``.

    Raises ``OSError`` that says what to do where that is not given.
    """
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if os.access(existing, os.W_OK):
        return folder
    if instead is None:
        raise OSError(errno.EACCES, f"{folder} cannot be written to; give results_root, a folder for what is computed")
    return Path(instead).expanduser() / folder.name


def serve_the_nameless() -> None:
    """Name the folder that PyTorch's optimisers name after their user, where that user has no name and they would end.

    In a container a user is often a bare number.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(gettempdir(), f"torchinductor_{os.getuid()}")))

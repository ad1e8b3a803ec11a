"""A full disk, as far as a process can bring one about: no file of its own can grow."""

import io
import resource
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


@contextmanager
def full_disk(after: int = 0) -> Iterator[None]:
    """No file can grow beyond so many bytes.

    Progress goes nowhere: pytest keeps it in a file, and a bar that cannot write never lets go of tqdm's lock.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, limits[1]))
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

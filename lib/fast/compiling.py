"""How kernels are compiled: once for all processes where a cache can be kept, else in each process anew.

A cache saves seconds and nothing else, so one that is damaged, or that has no room, ends nothing.
"""

import os
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import numba
from numba.core.caching import CompileResultCacheImpl, FunctionCache


def compiled(function: Callable) -> Callable:
    """The function, compiled by numba at its first call, for any number of threads.

    What is compiled is kept where numba keeps it: in the folder ``NUMBA_CACHE_DIR``, beside the source, or in the
    user's own cache. Where none of them can be written nothing is kept; nor is it in the temporary folder, where others
    may write: numba unpickles, and so executes, what it finds.
    """
    dispatcher = numba.njit(error_model="numpy", nogil=True)(function)
    with suppress(OSError, RuntimeError):  # no such place, or the source is not to be read
        dispatcher._cache = Cache(function)
    return dispatcher


class Places(CompileResultCacheImpl):
    """Numba's places but for the user's own where the user has no home: it would be a folder called "~" right here."""

    _locator_classes = [  # noqa: RUF012  numba's own
        place
        for place in CompileResultCacheImpl._locator_classes
        if os.path.isabs(os.path.expanduser("~")) or "UserWide" not in place.__name__
    ]


class Cache(FunctionCache):
    """Numba's cache of a function, done without where it fails."""

    _impl_class = Places

    def load_overload(self, sig, target_context):
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # damaged bytes can lead to any
            with suppress(OSError):
                self.flush()  # so that it is written anew
            warn_once(f"the cache in {self.cache_path} is damaged: what it lacks is compiled anew")
            return None

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        except Exception:
            remedy = "make room there, delete its *.nbi files, or set NUMBA_CACHE_DIR to another folder"
            warn_once(f"compiled kernels cannot be kept in {self.cache_path}; {remedy}")


@cache
def warn_once(what: str) -> None:
    warnings.warn(what, stacklevel=3)

"""Recordings and their spikes on disk, in the layouts in which their publishers give them out, and your own.

A set's file says all about it (SHD and SSC share theirs); to add one, write its file and add it to the list.
"""

from pathlib import Path

from lib.datasets.dataset import DataSet
from lib.datasets.folder import FOLDER
from lib.datasets.fsdd import FSDD
from lib.datasets.hd import HD
from lib.datasets.sc import SC
from lib.datasets.shd_ssc import SHD, SSC
from lib.datasets.synthetic_hd import SYNTHETIC_HD
from lib.datasets.synthetic_sc import SYNTHETIC_SC
from lib.datasets.synthetic_shd import SYNTHETIC_SHD
from lib.datasets.utterances import DataSettings, Utterances

SETS = {one.name: one for one in (HD, SC, FSDD, FOLDER, SHD, SSC, SYNTHETIC_HD, SYNTHETIC_SC, SYNTHETIC_SHD)}


def get(name: str) -> DataSet:
    """Return the set of this name, or raise ``ValueError`` with the names that there are."""
    if name not in [*SETS]:  # a list of names is none of them, and has no hash
        raise ValueError(f"no data set is called {name!r}: the sets are {', '.join(SETS)}")
    return SETS[name]


def load(name: str, root: str | Path, settings: DataSettings | None = None) -> Utterances:
    """Load a set from the folder that holds its own layout (``DataSet.load``)."""
    return get(name).load(root, settings)

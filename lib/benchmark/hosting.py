"""What a hosted machine has to give: the seconds and the memory of each notebook at its defaults, no run stored.

python -m lib.benchmark.hosting    # writes data/results/hosting.csv anew, in some minutes
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from lib import provenance
from lib.files import atomic_write
from lib.pages import for_papermill
from lib.parameters import NOTEBOOKS
from lib.runs import DATA

BOOK = DATA.parent / "book"
# A Binder's memory, and NeuroLibre's for a book: https://github.com/neurolibre/docs.neurolibre.org, FAQ.rst.
BINDER_GB, NEUROLIBRE = 2.0, {"hours": 8.0, "memory (GB)": 7.5, "written (GB)": 10.0}
PATH = DATA / "results" / "hosting.csv"
# A process begins with the peak of the one that started it, so a small one stands between, and says its child's peak.
MEASURED = """
import resource, subprocess, sys
failed = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(failed)
"""


def run(notebook: Path, folder: Path, parameters: Mapping[str, str] | None = None) -> dict[str, float]:
    """Run a notebook by papermill in a process of its own, its runs into this folder: ``seconds`` and ``memory_gb``.

    The memory is the most that one process of it held at once, its kernel in all but name. Raises ``RuntimeError`` with
    the last line of what it said where it fails.
    """
    given = {"results_root": str(folder)} if notebook.stem in NOTEBOOKS else {}
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", for_papermill(notebook), os.devnull]
    for name, value in (given | dict(parameters or {})).items():
        command += ["-y", f"{name}: {value}"]
    began = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        failed = subprocess.call(
            [sys.executable, "-c", MEASURED, *command], cwd=notebook.parent, stdout=said, stderr=subprocess.STDOUT
        )
        said.seek(0)
        *lines, most = filter(str.strip, said.read().decode(errors="replace").splitlines())
        if failed:
            raise RuntimeError(f"{notebook.name}: {lines[-1]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return {"seconds": time.perf_counter() - began, "memory_gb": int(most) * unit / 1e9}


def written(*folders: Path) -> float:
    """What lies in these folders, in GB."""
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e9


def main(arguments: list[str] | None = None) -> None:
    argparse.ArgumentParser("python -m lib.benchmark.hosting", description=__doc__).parse_args(arguments)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for notebook in tqdm(sorted(BOOK.glob("[!.]*.ipynb"))):
            rows.append({"notebook": notebook.stem} | run(notebook, Path(folder)))
        rows.append({"notebook": "the environment", "written_gb": written(Path(sys.prefix))})
        rows.append({"notebook": "what the notebooks write", "written_gb": written(Path(folder))})
    with atomic_write(PATH) as aside:
        told = pd.DataFrame(rows).assign(cores=os.cpu_count(), commit=provenance.COMMIT)
        told.to_csv(aside, index=False, float_format="%.4g")


if __name__ == "__main__":
    main()

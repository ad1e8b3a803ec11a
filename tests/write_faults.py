"""Write the book's tables of what goes wrong and what one then reads: every fault of ``test_faults``, tried.

Some faults root does not see; another user has to write the tables.
"""

import os
import re
import sys
import tempfile
from pathlib import Path

import pandas as pd
import small_world
from test_faults import AREAS, BOOK, world_of
from tqdm import tqdm

from lib.pages import without_paths_in_text


def sentence(world: Path, fault: tuple) -> str:
    """What the user reads, without where the world lies."""
    _, done, asked, *_ = fault
    done(world)
    try:
        asked(world)
    except BaseException as error:
        words = str(error).replace(f"{world}/", "").replace(str(world.parent), "…")
        return without_paths_in_text(re.sub(r"\.\w{8}\.aside", ".….aside", words), world)
    raise AssertionError(f"nothing is said of {fault[0]}")


def main() -> None:
    if os.geteuid() == 0:
        sys.exit("root reads and writes everywhere, and some faults are that one may not: run this as another user")
    BOOK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        small_world.make(sound := Path(folder, "sound"))
        for area, faults in AREAS.items():
            rows = []
            for fault in tqdm(faults, desc=area, leave=False):
                with tempfile.TemporaryDirectory() as place, world_of(sound, Path(place)) as world:
                    rows.append((fault[0], sentence(world, fault)))
            table = pd.DataFrame(rows, columns=["what is wrong", "what you read"])
            table[table["what you read"] != ""].to_csv(BOOK / f"{area}.csv", index=False)


if __name__ == "__main__":
    main()

"""Make a Colab session ready for a notebook; its first cell runs this within its kernel.

pip leaves what Colab has where it is within the library's range (``colab.txt``). torch and torchaudio have a single
release there, the lock's. Where a module that is loaded already was replaced, the session starts anew: run the cell
again.
"""

import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from IPython import get_ipython

WANTED = Path(__file__).with_name("colab.txt")


def replaced():
    """The wanted modules that are loaded, and of another version than what is installed."""
    found = []
    for name in (
        re.match(r"[\w-]+", line)[0]
        for line in WANTED.read_text().splitlines()
    ):
        loaded = getattr(sys.modules.get(name), "__version__", None)
        # PyTorch's own says for which accelerator it was built.
        if (
            loaded
            and loaded.partition("+")[0] != version(name).partition("+")[0]
        ):
            found.append(name)
    return found


def main():
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--requirement",
            WANTED,
        ],
        check=True,
    )
    if names := replaced():
        print(
            f"{', '.join(names)}: replaced. The session starts anew; run this cell again then."
        )
        get_ipython().kernel.do_shutdown(restart=True)


if __name__ == "__main__":
    main()

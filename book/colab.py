"""Make a Colab session ready for a notebook; its first cell runs this within its kernel.

pip leaves what Colab has where it is within the library's range (``colab.txt``). torch and torchaudio have a single
release there, the lock's. Where a module that is loaded already was replaced, the session starts anew: run the cell
again.
"""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from IPython import get_ipython


def replaced():
    """The loaded modules that are of another version than what is installed."""
    found = []
    for name, module in [*sys.modules.items()]:
        loaded = getattr(module, "__version__", None)
        try:
            if (
                "." not in name
                and isinstance(loaded, str)
                and loaded != version(name)
            ):
                found.append(name)
        except PackageNotFoundError:
            continue
    return found


def main():
    before = (
        replaced()
    )  # versions that were at odds from the start say nothing
    wanted = Path(__file__).with_name("colab.txt")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--requirement",
            wanted,
        ],
        check=True,
    )
    if new := [name for name in replaced() if name not in before]:
        print(
            f"{', '.join(sorted(new))}: replaced. The session starts anew; run this cell again then."
        )
        get_ipython().kernel.do_shutdown(restart=True)


if __name__ == "__main__":
    main()

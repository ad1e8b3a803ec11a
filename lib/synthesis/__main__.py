"""The command line: a synthetic set at its published size."""

import argparse
import sys
from pathlib import Path

from lib.synthesis import DEFAULT_UTTERANCES, make


def main(arguments: list[str] | None = None) -> int:
    description = "Make synthetic speech in the layout and the counts of HD, SC or SHD at full size."
    parser = argparse.ArgumentParser("python -m lib.synthesis", description=description)
    parser.add_argument("name", choices=DEFAULT_UTTERANCES)
    parser.add_argument("root", type=Path, help="the folder for it, such as data/rehearsal/hd")
    options = parser.parse_args(arguments)
    try:
        make(options.name, options.root, full=True)
    except KeyboardInterrupt:
        print("Interrupted: nothing was kept; the same command starts again.", file=sys.stderr)
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

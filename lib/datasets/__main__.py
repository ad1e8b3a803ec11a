"""The command line: bring a set into a folder, made or downloaded, and say what it is."""

import argparse
import sys

from lib.datasets import SETS
from lib.features import PARTS
from lib.settings import folder_argument


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m lib.datasets", description="Download a published set or make another.")
    parser.add_argument("name", choices=SETS)
    parser.add_argument("root", type=folder_argument, help="the folder for it, such as data/fsdd")
    parser.add_argument("--full", action="store_true", help="a synthetic set of its model's published size")
    options = parser.parse_args(arguments)
    dataset = SETS[options.name]
    if options.full and dataset.make is None:
        parser.error(f"{dataset.name} is published, and always full: leave --full out")
    try:
        if options.full:
            dataset.make(options.root, None)
        else:
            dataset.prepare(options.root)
        loaded = dataset.load(options.root)
    except KeyboardInterrupt:
        print("Interrupted: what is not whole is not there; the same command goes on.", file=sys.stderr)
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    parts = ", ".join(f"{part} {len(loaded.part(part)):,}" for part in PARTS)
    print(f"{options.root} holds {dataset.name}: {len(loaded.class_names)} classes, {parts} utterances")
    return 0


if __name__ == "__main__":
    sys.exit(main())

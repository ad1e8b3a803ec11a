"""The command line of studies: ``python -m lib.study book/studies/NAME.yml``."""

import argparse
import sys

from lib.settings import folder_argument
from lib.study import engine, read, tables, tuning, verification


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m lib.study", description="Train and measure the networks of a study.")
    parser.add_argument("study", type=folder_argument, help="such as book/studies/neurons.yml")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--tune", action="store_true", help="choose the settings instead")
    instead.add_argument("--verify", action="store_true", help="compute runs of the stored results anew and compare")
    parser.add_argument("--share", type=float, help="of the runs to verify, above 0 and up to 1")
    parser.add_argument("--scheduler", help="the address of a Dask scheduler; without it processes of this machine")
    options = parser.parse_args(arguments)
    if options.share is not None and not options.verify:
        parser.error("--share is of the runs to verify: give --verify, too")
    try:
        study = read(options.study)
        results = tables.RESULTS / study.name
        if options.verify:
            return verification.verify(study, results, options.share, options.scheduler)
        if options.tune:
            return tuning.tune(study, results, options.scheduler)
        lacking = engine.run(study, results, options.scheduler)
        if lacking:
            said = f"{lacking} runs of {study.name} could not be measured, or compared with what is stored."
            print(said, file=sys.stderr)
        return int(lacking > 0)
    except KeyboardInterrupt:
        print("Interrupted: what is done is stored, and the same command goes on.", file=sys.stderr)
        return 130
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2 if options.verify else 1


if __name__ == "__main__":
    sys.exit(main())

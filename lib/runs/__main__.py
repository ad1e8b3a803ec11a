"""The command line of runs: ``python -m lib.runs predict RUN FILE…`` names recordings."""

import argparse
import sys
from pathlib import Path

from lib.runs import DATA, Run
from lib.runs.recordings import Answer, answers

SHOWN = 5  # words of a recording, at most


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m lib.runs", description="Use a finished run.")
    predict = parser.add_subparsers(required=True).add_parser("predict", help="say which words recordings hold")
    predict.add_argument("run", help="the run's folder, or its name in data/runs")
    predict.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a recording of one word")
    predict.add_argument("--samples", type=int, default=16, help="of the weights, to average over (default 16)")
    predict.add_argument("--data-root", type=Path, help="the folder of the run's data set, for a run of an old edition")
    options = parser.parse_args(arguments)
    try:
        if options.samples < 1:
            raise ValueError(f"--samples {options.samples} does not fit: it must be a whole number from 1 up")
        run = Run(folder_of(options.run))
        for answer in answers(run, options.files, options.samples, options.data_root):
            print(described(answer), end="\n\n")
    except (OSError, ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def folder_of(run: str) -> Path:
    """Raises ``FileNotFoundError`` that names what there is."""
    for folder in (Path(run).expanduser(), DATA / "runs" / run):
        if (folder / "run.json").exists():
            return folder
    there = sorted(path.parent.name for path in (DATA / "runs").glob("*/run.json"))
    names = f"{DATA / 'runs'} holds {', '.join(there) or 'none'}"
    raise FileNotFoundError(f"{run} is no finished run: give the folder that holds its run.json; {names}")


def described(answer: Answer) -> str:
    """The most probable words, how sure the run is, and what to mind."""
    words = answer.probabilities[:SHOWN]
    width = max(len("word"), *map(len, words.index))
    lines = [f"{answer.path}", f"  {'word':{width}}  probability"]
    lines += [f"  {word:{width}}  {probability:11.3f}" for word, probability in words.items()]
    if rest := len(answer.probabilities) - len(words):
        lines.append(f"  {'others':{width}}  {1 - words.sum():11.3f}  ({rest} words)")
    lines.append(
        f"  entropy {answer.entropy:.3f} of at most {answer.most_entropy:.3f} nats, "
        f"mutual information {answer.mutual_information:.3f} nats"
    )
    return "\n".join(lines + [f"  unlike the training recordings: {what}" for what in answer.unlike])


if __name__ == "__main__":
    sys.exit(main())

"""Run the whole sequence on a Slurm or SGE cluster, one worker a job.

    pip install dask-jobqueue
    python cluster.py slurm --jobs 12 --params book/params/paper.yml

It submits the jobs, waits for the first, and cancels them at the end; run it where it may stay as long, as in a job of
its own. The nodes must see this folder, its .venv and data/ at the same place as the machine that it is run on. Queue,
account and time limit are the site's matter and are read from ~/.config/dask/jobqueue.yaml:

    jobqueue:
      slurm: {queue: night, account: speech, walltime: "12:00:00"}
      sge: {queue: all.q, project: speech, walltime: "12:00:00"}
"""

import argparse
import sys

from dask_jobqueue import SGECluster, SLURMCluster

from lib.pipeline.__main__ import main

ENGINES = {"slurm": SLURMCluster, "sge": SGECluster}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description="Run the notebooks as jobs of a cluster, render the book.",
        epilog="Whatever else is given goes to `python -m lib.pipeline`.",
    )
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--jobs", type=int, default=4, help="how many, with one core each; a step takes one")
    parser.add_argument("--memory", default="8GB", help="of a job")
    options, given = parser.parse_known_args()
    with ENGINES[options.engine](cores=1, memory=options.memory, n_workers=options.jobs) as cluster:
        sys.exit(main([*given, "--scheduler", cluster.scheduler_address]))

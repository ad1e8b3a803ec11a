"""What it costs: timings of the library beside the matrix products that it cannot do without, and beside its peers.

``python -m lib.benchmark`` measures and writes ``data/results/bench-*.csv``; the chapter ``book/cost.ipynb`` reads
them. All that is compared is timed in turns, round by round, so that what else the machine does meets all alike.
"""

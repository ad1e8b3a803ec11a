"""Run the notebooks in sequence through papermill, on the workers of a Dask cluster, and render the book.

    python -m lib.pipeline --params book/params/quick.yml [--results DIR] [--scheduler ADDRESS]

`planning` turns settings files into steps, `execution` hands them to the cluster in their order, a `worker` runs one,
the `display` tells how far they are; `pages` cleans what they leave and renders the book. Notebooks and their
parameters are all that they know; the committed notebooks are left alone.
"""

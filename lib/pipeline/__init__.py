"""Run the notebooks in sequence through papermill and render the book.

    python -m lib.pipeline --params book/params/quick.yml [--results DIR]

`planning` turns a settings file into steps, `execution` runs them, `pages` cleans what they leave and renders
the book. Notebooks and their parameters are all that they know; the committed notebooks are left alone.
"""

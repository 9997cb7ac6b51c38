"""Experiments: arms x bits x seeds x data sets, trained and compared.

``python -m experiments run PLAN`` trains what a plan lists, on one machine or
on a Ray cluster; ``python -m experiments report RESULTS`` makes tables and
plots of the results; ``python -m experiments.demo`` is the demo.
"""

from pathlib import Path

#: The checkout, whose configs and tools the runs use.
REPOSITORY = Path(__file__).resolve().parents[1]

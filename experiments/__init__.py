"""Experiments: arms x bits x seeds x data sets, trained and compared.

``python -m experiments run PLAN`` trains what a plan lists, on one machine or
on a Ray cluster; ``python -m experiments report RESULTS`` makes tables and
plots of the results; ``python -m experiments.demo`` is the demo.
"""

from importlib.util import find_spec
from pathlib import Path

#: The checkout, whose configs and tools the runs use.
REPOSITORY = Path(__file__).resolve().parents[1]

_NEEDED = (
    'filelock',
    'jsonschema',
    'pandas',
    'ray',
    'scipy',
    'seaborn',
    'yaml',
)
if _missing := [name for name in _NEEDED if find_spec(name) is None]:
    raise ImportError(
        f'not installed: {", ".join(_missing)}; expected the packages of '
        'mmgor[experiments]. Type: pip install -e ".[experiments]"'
    )

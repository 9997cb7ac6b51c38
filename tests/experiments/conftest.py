"""Without the packages of ``mmgor[experiments]`` nothing here can run."""

from importlib.util import find_spec

NEEDED = ('ray', 'pandas', 'seaborn')
collect_ignore_glob = [] if all(map(find_spec, NEEDED)) else ['test_*.py']

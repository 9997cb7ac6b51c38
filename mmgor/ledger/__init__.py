"""The ledger: a table of arms, bits, seeds and data sets, run and kept.

``tools/ledger.py`` trains what a plan lists, ``tools/ledger_report.py`` makes
tables and plots of the results.
"""

"""Tables and pictures of a ledger's results.

python tools/ledger_report.py work_dirs/ledger/bccd_screen.jsonl \\
    --reference qat --out report.md

Pictures are written beside the report. Curves are read from the runs' folders
beside the results.
"""

import argparse
from pathlib import Path

import _common  # noqa: F401

from mmgor.io.atomic_write import write_text
from mmgor.ledger.gradient_table import gradient_text
from mmgor.ledger.plots import plot_all, read_curves
from mmgor.ledger.records import read_records
from mmgor.ledger.tables import report_text


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('results', type=Path, help='.jsonl of tools/ledger.py')
    parser.add_argument(
        '--reference', help='arm that the others are compared with by seed'
    )
    parser.add_argument('--out', type=Path, required=True, help='.md to write')
    args = parser.parse_args()
    if not args.results.is_file() or args.results.suffix != '.jsonl':
        parser.error(
            f'expected the .jsonl file of tools/ledger.py, got {args.results}'
        )
    if args.out.suffix != '.md' or args.out.is_dir():
        parser.error(f'--out expected a .md file to write, got {args.out}')
    return args


def main() -> None:
    args = parse_args()
    records = list(read_records(args.results).values())
    text = report_text(args.results.stem, records, args.reference)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    curves = read_curves(records, args.results.with_suffix(''))
    pictures = plot_all(records, curves, args.out)
    links = [f'\n![{path.stem}]({path.name})\n' for path in pictures]
    text = '\n'.join(part for part in (text, gradient_text(curves)) if part)
    write_text(args.out, text + ''.join(links))
    for path in (args.out, *pictures):
        print(path)


if __name__ == '__main__':
    main()

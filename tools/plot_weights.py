"""Plot the loss weights of GoR over a run.

python tools/plot_weights.py work_dirs/retinanet_r18_w4_from_r101
"""

import argparse
from pathlib import Path

import _common  # noqa: F401

from mmgor.hooks import plot_weight_curves, read_scalars


def find_scalars(source: Path) -> Path:
    """Find the newest scalars.json with a ``gor_*`` value.

    Args:
        source (Path): Work directory, or the file itself.

    Raises:
        FileNotFoundError: If there is none.
    """
    if source.is_file():
        return source
    found = [
        path
        for path in source.glob('**/scalars.json')
        if '"gor_' in path.read_text()
    ]
    if not found:
        raise FileNotFoundError(
            f'no scalars.json with gor_* values under {source}; expected the '
            "work directory of a GoRDetector's run with a LocalVisBackend, "
            'or the file itself.'
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'source', type=Path, help='work directory or scalars.json'
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('weights.png'),
        help='image to write (default: %(default)s)',
    )
    args = parser.parse_args()
    scalars = find_scalars(args.source)
    print(plot_weight_curves(read_scalars(scalars), args.out))


if __name__ == '__main__':
    main()

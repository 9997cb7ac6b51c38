"""The demo's one table."""

import json
from pathlib import Path
from statistics import mean, stdev

from mmengine.config import Config

from mmgor.io.atomic_write import write_text
from mmgor.quantization import layer_table
from mmgor.registry import MODELS

from .arms import TITLES, Arm


def model_size(config: Config) -> dict:
    """Bits, parameters and packed bytes of an arm's student."""
    table = layer_table(MODELS.build(config.model))
    bits = sorted({(row['w_bits'], row['a_bits']) for row in table['layers']})
    low = bits[0]
    label = 'float32' if low[0] == 32 else f'W{low[0]}A{low[1]}'
    return dict(bits=label, **table['total'])


def summarise(runs: list[tuple[Arm, dict]]) -> list[dict]:
    """One row an arm: means (and deviations) over its seeds.

    Args:
        runs (list[tuple[Arm, dict]]): Arms with their results.
    """
    names = list(dict.fromkeys(arm.name for arm, _ in runs))
    rows = []
    for name in names:
        mine = [(arm, result) for arm, result in runs if arm.name == name]
        size = model_size(mine[0][0].config)
        row = dict(
            arm=name,
            title=TITLES[name],
            seeds=[arm.seed for arm, _ in mine],
            bits=size['bits'],
            params=size['params'],
            bytes=size['bytes'],
        )
        for metric in ('mAP', 'AP50'):
            row[metric] = [100 * result[metric] for _, result in mine]
        rows.append(row)
    return rows


def spread(values: list[float]) -> str:
    """'39.1' for one value, '39.1 +- 0.4' (sample deviation) for several."""
    if len(values) == 1:
        return f'{values[0]:.1f}'
    return f'{mean(values):.1f} +- {stdev(values):.1f}'


def format_rows(rows: list[dict]) -> str:
    """The table in Markdown, aligned for a terminal."""
    header = ('model', 'mAP', 'AP50', 'bits', 'parameters', 'MB packed')
    body = [
        (
            row['title'],
            spread(row['mAP']),
            spread(row['AP50']),
            row['bits'],
            f'{row["params"]:,}',
            f'{row["bytes"] / 1e6:.2f}',
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in (header, *body)) for i in range(6)]
    lines = [
        '| '
        + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths))
        + ' |'
        for line in (header, *body)
    ]
    rule = '|' + '|'.join('-' * (width + 2) for width in widths) + '|'
    return '\n'.join([lines[0], rule, *lines[1:]])


def save_rows(rows: list[dict], work_dir: Path) -> None:
    """Write ``results.json`` and ``results.md``."""
    write_text(work_dir / 'results.json', json.dumps(rows, indent=1) + '\n')
    write_text(work_dir / 'results.md', format_rows(rows) + '\n')

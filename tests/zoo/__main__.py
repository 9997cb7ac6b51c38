"""Convert the configs of mmdet's model zoo, one after the other.

    python -m tests.zoo --out work_dirs/zoo.jsonl

Each config becomes a W4A4 student that takes one training step on noise. A
line of the file is one config; a second call goes on with those that are
missing. The table at the end says what works and what does not, and why.
"""

import argparse
import gc
import json
import os
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from mmengine.logging import MMLogger

from mmgor.conversion.convert import convert
from mmgor.conversion.request import Request
from mmgor.conversion.trial import NO_STEP, NOT_BUILT

from .configs import ROOT, address, configs_of, folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('configs', nargs='*', help='default: the whole zoo')
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--per-folder', type=int, default=1)
    args = parser.parse_args()
    # What the parts log while they are tried would fill the terminal.
    MMLogger.get_instance('zoo', log_level='ERROR')
    chosen = args.configs or [
        name
        for folder in folders()
        for name in configs_of(folder, args.per_folder)
    ]
    args.out = args.out.resolve()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.touch()
    os.chdir(ROOT.parent)  # some configs name others as 'configs/...'
    done = {row['config'] for row in read(args.out)}
    for name in chosen:
        if name not in done:
            row = try_config(name)
            print(row['result'], name, row.get('why', ''), flush=True)
            with args.out.open('a') as file:
                file.write(json.dumps(row) + '\n')
    print(table([row for row in read(args.out) if row['config'] in chosen]))


def read(path: Path) -> list[dict]:
    """The results so far."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def try_config(name: str) -> dict:
    """Convert one config.

    Returns:
        dict: ``result`` is 'converted', 'no detector', 'float fails' or
        'failed'; ``why`` has the reason, ``macs`` the share of
        multiply-accumulates in float.
    """
    torch.manual_seed(0)
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / 'student.py'
        try:
            trial = convert(Request(address(name), out), lambda _: None)
        except Exception as error:  # the zoo may raise anything
            row = dict(result=_kind(error), why=_one_line(error))
        else:
            row = dict(
                result='converted',
                macs=sum(share.macs for share in trial.shares),
                still=len(trial.still),
                layers=trial.quantized,
                float=[(s.cause, s.macs) for s in trial.shares],
            )
    gc.collect()
    seconds = round(time.process_time() - start, 1)
    return dict(config=name, seconds=seconds, **row)


def _kind(error: Exception) -> str:
    text = str(error)
    if 'expected the config of a detector' in text or 'no model' in text:
        return 'no detector'
    stock = (NO_STEP, NOT_BUILT, 'could not be read')
    return 'float fails' if any(x in text for x in stock) else 'failed'


def _one_line(error: Exception) -> str:
    return f'{type(error).__name__}: {" ".join(str(error).split())}'[:300]


def table(rows: list[dict]) -> str:
    """The results as a table, and their numbers."""
    lines = ['| config | result | MACs in float | why |', '|---|---|---|---|']
    for row in rows:
        macs = f'{row["macs"]:.1%}' if 'macs' in row else ''
        why = row.get('why', '')
        lines.append(f'| {row["config"]} | {row["result"]} | {macs} | {why} |')
    counts = Counter(row['result'] for row in rows)
    most = sum(row.get('macs', 1) <= 0.1 for row in rows)
    lines.append(f'\n{dict(counts)}; at least 90 % of the MACs: {most}')
    return '\n'.join(lines)


if __name__ == '__main__':
    main()

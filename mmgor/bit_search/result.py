"""What a search writes: a table, a plot and a config."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mmgor.conversion.checkpoints import path_from
from mmgor.conversion.parts import ARGUMENTS
from mmgor.conversion.source import Code, assignment, render
from mmgor.io.atomic_write import writing

from .search import Bits, Found, mean_bits


def table(found: Found) -> str:
    """A line per layer: bits, numbers, and what the bits cost."""
    rows = {(one.layer, one.side): one for one in found.sensitivities}
    lines = [
        f'{"layer":44s} {"W":>2s} {"weights":>9s} {"cost":>9s} '
        f'{"A":>2s} {"inputs":>9s} {"cost":>9s}'
    ]
    for layer, bits in found.bits.items():
        cells = [f'{layer:44s}']
        for side in ('w_bits', 'a_bits'):
            one = rows.get((layer, side))
            if one is None or side not in bits:
                cells.append(f'{"":2s} {"":9s} {"":9s}')
                continue
            count = bits[side]
            cells.append(f'{count:2d} {one.count:9d} {one.costs[count]:9.2g}')
        lines.append(' '.join(cells).rstrip())
    return '\n'.join(lines)


def summary(found: Found) -> list[str]:
    """Mean bits, expected growth of the loss, and bytes."""
    lines = ['first and prediction layers keep the bits of the config']
    for side, name in (('w_bits', 'weights'), ('a_bits', 'inputs')):
        own = [
            one
            for one in found.sensitivities
            if one.side == side and side in found.bits.get(one.layer, {})
        ]
        if not own:
            continue
        mean = mean_bits(own, found.bits, side)
        cost = sum(one.costs[found.bits[one.layer][side]] for one in own)
        even = sum(one.costs[round(mean)] for one in own)
        lines.append(
            f'{name:10s} {mean:.2f} bits on average; the loss is expected to '
            f'grow by {cost:.3g} ({even:.3g} with {round(mean)} bits '
            'everywhere)'
        )
    lines.append(f'packed     {found.size / 1e6:.3f} MB')
    return lines


def plot(found: Found, path: Path) -> None:
    """Bits of each layer, and what 4 bits would cost it."""
    layers = [*found.bits]
    figure = Figure(figsize=(max(6, 0.14 * len(layers)), 6))
    top, bottom = figure.subplots(2, 1, sharex=True)
    for side, name, colour in (
        ('w_bits', 'weights', 'tab:blue'),
        ('a_bits', 'inputs', 'tab:orange'),
    ):
        bits = [found.bits[layer].get(side) for layer in layers]
        top.step(
            range(len(layers)),
            [float('nan') if b is None else b for b in bits],
            where='mid',
            color=colour,
            label=name,
        )
        costs = {
            one.layer: one.costs[4]
            for one in found.sensitivities
            if one.side == side
        }
        bottom.semilogy(
            [costs.get(layer, float('nan')) for layer in layers],
            '.',
            color=colour,
            label=name,
        )
    top.set_ylabel('bits')
    top.set_ylim(1.5, 8.5)
    top.legend(loc='lower right')
    bottom.set_ylabel('growth of the loss\nat 4 bits')
    bottom.set_xticks(range(len(layers)), layers, rotation=90, fontsize=5)
    figure.tight_layout()
    with writing(path) as part:
        figure.savefig(part, dpi=150)


def config_text(config: str, out: Path, cfg: Any, bits: Bits) -> str:
    """The source of a config with these bits, on top of the student's.

    Args:
        config (str): The student's config, as the command line named it.
        out (Path): Where it is written.
        cfg (Config): The student's config.
        bits (dict): Layer -> ``w_bits`` and ``a_bits``.
    """
    left = {name: dict(sides) for name, sides in bits.items()}
    model = _overrides(cfg['model'], '', left)
    if left:  # layers of a transformer, which the detector's class wraps
        model = {'quant': dict(overrides=left), **model}
    base = path_from(out.resolve().parent, config)
    return (
        '"""Bits found by `mmgor bits`."""\n\n'
        + assignment('_base_', base)
        + assignment('model', model)
    )


def _overrides(value: dict, path: str, left: dict[str, dict]) -> dict:
    """What changes in a part of the model's config. The layers that it
    names are taken out of ``left``."""
    changes: dict[str, Any] = {}
    for key, inner in value.items():
        place = f'{path}{key}'
        if key == 'teachers':
            continue
        if isinstance(inner, dict) and inner.get('type') in ARGUMENTS:
            own = _take(left, f'{place}.')
            if own:
                changes[key] = dict(quant=dict(overrides=own))
        elif isinstance(inner, dict):
            found = _overrides(inner, f'{place}.', left)
            if found:
                changes[key] = found
        elif _is_list_of_parts(inner):
            changes[key] = [
                _listed(f'_base_.model.{place}[{i}]', f'{place}.{i}.', left)
                for i in range(len(inner))
            ]
    return changes


def _is_list_of_parts(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and any(
        isinstance(one, dict) and one.get('type') in ARGUMENTS for one in value
    )


def _listed(base: str, prefix: str, left: dict[str, dict]) -> Code:
    own = _take(left, prefix)
    if not own:
        return Code(base)
    quant = f'{base}.quant'
    return Code(
        f'dict(\n    {base},\n    quant=dict(\n        {quant},\n'
        f'        overrides={render(own, 8, 18)},\n    ),\n)'
    )


def _take(left: dict[str, dict], prefix: str) -> dict[str, dict]:
    names = [name for name in left if name.startswith(prefix)]
    return {name.removeprefix(prefix): left.pop(name) for name in names}

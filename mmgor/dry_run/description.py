"""What a training consists of, in lines of text."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from mmcv.cnn import is_norm
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

from mmgor.hooks.training_batches import batch_size
from mmgor.io.checkpoint import is_deployed
from mmgor.listing import listed
from mmgor.quantization import layer_table

#: Kinds of parameters, in the order in which they are shown.
KINDS = ('weights', 'biases', 'norms', 'step sizes', 'thetas')


def model_lines(model: Any) -> list[str]:
    """The detector, its teachers and its KD heads.

    Args:
        model (nn.Module): The detector, without wrappers. Its teachers, if it
            has some, are built.
    """
    numbers = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    lines = [
        f'model: {type(model).__name__}, {_millions(numbers)} parameters, '
        f'{_millions(trained)} of them trained'
    ]
    teachers = getattr(model, 'teachers', None)
    for name, teacher in teachers.items() if teachers else ():
        size = sum(p.numel() for p in teacher.model.parameters())
        lines.append(
            f'  teacher {name}: {type(teacher.model).__name__}, '
            f'{_millions(size)} parameters, from {teacher.checkpoint}'
        )
    for name, head in getattr(model, 'kd_heads', {}).items():
        lines.append(
            f'  kd_heads.{name}: {type(head).__name__}, {head.teacher_tap} of '
            f'{listed(head.teachers)} -> {head.student_tap}'
        )
    weighting = getattr(model, 'gor_weighting', None)
    if weighting is not None:
        lines.append(f'  gor_weighting: {type(weighting).__name__}')
    return lines


def bit_lines(model: nn.Module) -> list[str]:
    """Bits and bytes of each part of the detector.

    Args:
        model (nn.Module): The detector, without wrappers.
    """
    table = layer_table(model)
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in table['layers']:
        parts.setdefault(row['name'].partition('.')[0], []).append(row)
    lines = ['bits of weights and inputs, and how many layers have them:']
    for part, rows in parts.items():
        bits = Counter((row['w_bits'], row['a_bits']) for row in rows)
        counts = ', '.join(
            f'W{w}A{a}: {count}' if w < 32 else f'float: {count}'
            for (w, a), count in sorted(bits.items())
        )
        size = sum(row['bytes'] for row in rows)
        lines.append(f'  {part:12} {counts}; {size / 1e6:.3f} MB')
    total = table['total']
    lines.append(
        f'  {"packed":12} {total["bytes"] / 1e6:.3f} MB, '
        f'{total["float_bytes"] / 1e6:.3f} MB in float32'
    )
    return lines


def optimizer_lines(optim_wrapper: Any, model: nn.Module) -> list[str]:
    """The optimizer's groups: learning rate, weight decay, parameters.

    Groups with the same settings are one line. The learning rate is the one
    before warm-up and schedule.

    Args:
        optim_wrapper (mmengine.optim.OptimWrapper): Of a Runner; or a dict of
            them, OptimWrapperDict.
        model (nn.Module): Whose parameters it has.
    """
    kinds = {id(p): kind for p, kind in _kinds(model)}
    wrappers = {'': optim_wrapper}
    if isinstance(optim_wrapper, OptimWrapperDict):
        wrappers = dict(optim_wrapper.items())
    lines, seen = [], set()
    for name, wrapper in wrappers.items():
        optimizer = wrapper.optimizer
        groups: dict[tuple, Counter] = {}
        for group in optimizer.param_groups:
            rate = float(group.get('initial_lr', group['lr']))
            key = rate, float(group.get('weight_decay', 0))
            counts = groups.setdefault(key, Counter())
            counts.update(kinds.get(id(p), 'others') for p in group['params'])
            seen |= {id(p) for p in group['params']}
        title = f'optimizer {name}'.strip()
        lines.append(
            f'{title}: {type(optimizer).__name__} in {type(wrapper).__name__}'
        )
        lines += [
            f'  lr {rate:g}, weight decay {decay:g}: {_counts(counts)}'
            for (rate, decay), counts in groups.items()
        ]
    rest = Counter(kind for key, kind in kinds.items() if key not in seen)
    if rest:
        lines.append(f'  in no group, so not trained: {_counts(rest)}')
    return lines


def _kinds(model: nn.Module) -> Iterator[tuple[nn.Parameter, str]]:
    """Each trained parameter and its kind."""
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if '_quantizer.' in f'{path}.':
                kind = 'step sizes'
            elif f'{path}.'.startswith('gor_weighting.'):
                kind = 'thetas'
            elif is_norm(module):
                kind = 'norms'
            else:
                kind = 'biases' if name.endswith('bias') else 'weights'
            part = '' if is_deployed(path) or kind == 'thetas' else ' of KD'
            yield parameter, kind + part


def _counts(counts: Counter) -> str:
    known = {kind: i for i, kind in enumerate(KINDS)}
    ordered = sorted(counts, key=lambda kind: known.get(kind, len(known)))
    return ', '.join(f'{counts[kind]} {kind}' for kind in ordered)


def data_lines(runner: Runner) -> list[str]:
    """Sizes of the data sets and the number of iterations.

    Args:
        runner (Runner): Its loops built.
    """
    loop = runner.train_loop
    batch = batch_size(loop.dataloader) * runner.world_size
    length, unit = f'{loop.max_iters} iterations', 'iterations'
    if not isinstance(loop, IterBasedTrainLoop):
        unit = 'epochs'
        length += f' in {loop.max_epochs} epochs'
    if runner.iter:
        length += f', {runner.iter} of them done'
    lines = [
        f'data: {len(loop.dataloader.dataset)} images to train on, '
        f'{batch} a step; {length}'
    ]
    if runner.val_loop is not None:
        lines.append(
            f'  {len(runner.val_loop.dataloader.dataset)} images to evaluate '
            f'on, every {runner.val_interval} {unit}'
        )
    return lines


def hook_lines(hooks: list[Hook]) -> list[str]:
    """Names of the hooks, in their order."""
    names = [type(hook).__name__ for hook in hooks]
    return [f'hooks: {", ".join(names)}']


def _millions(count: int) -> str:
    return f'{count / 1e6:.3f} M'

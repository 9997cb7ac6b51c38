"""What a student's training changes in the recipe of its base config."""

from typing import Any

from mmgor.io.config_reader import type_name

#: Optimizers whose steps have the size of the learning rate, so that they
#: move step sizes (docs/design.md). The others hardly do.
ADAPTIVE = ('Adam', 'AdamW', 'NAdam', 'RAdam', 'Adamax', 'Lion', 'Adan')
#: For a student that starts from a trained detector.
LEARNING_RATE = 1e-4
_DECAY = 0.05
#: Activations with a short negative tail: an input after them gets an offset.
#: Names of the classes in torch, mmcv and timm, in lower case and without the
#: ending 'Me' of timm's variants that save memory.
_TAILED = (
    *('silu', 'swish', 'hardswish', 'hswish', 'gammaact'),
    *('gelu', 'gelutanh', 'quickgelu', 'mish', 'hardmish', 'elu'),
)


def optimizer(cfg: Any) -> tuple[dict | None, str]:
    """What the config writes in ``optim_wrapper``, and why.

    Args:
        cfg (Config): The float detector's config.

    Returns:
        tuple[dict | None, str]: None if the base config's optimizer stays,
        and one sentence.

    Raises:
        ValueError: If the config has no optimizer.
    """
    base = (cfg.get('optim_wrapper') or {}).get('optimizer')
    if not isinstance(base, dict) or 'type' not in base:
        raise ValueError(
            'expected a training config with optim_wrapper=dict(optimizer='
            'dict(type=...)), got none: a student is trained. Convert the '
            'config that the checkpoint was trained with.'
        )
    name, rate = type_name(base), base.get('lr')
    if name not in ADAPTIVE:
        chosen = dict(
            _delete_=True, type='AdamW', lr=LEARNING_RATE, weight_decay=_DECAY
        )
        why = f'AdamW instead of {name}, under which step sizes hardly move'
        return dict(optimizer=chosen), why
    if isinstance(rate, (int, float)) and rate > LEARNING_RATE:
        why = f'lr {LEARNING_RATE:g} instead of {rate:g}: weights are trained'
        return dict(optimizer=dict(lr=LEARNING_RATE)), why
    return None, f'{name} as in the base config'


def hooks(has_teachers: bool) -> list[dict]:
    """mmgor's hooks, which come after those of the base config.

    Args:
        has_teachers (bool): Whether losses are weighed.
    """
    own = ['QuantCalibrationHook', 'NonFiniteLossHook', 'ReportHook']
    if has_teachers:
        own.insert(1, 'GoRWeightHook')
    return [dict(type=name) for name in own]


def collate_function(cfg: Any, name: str) -> dict | None:
    """The base config's ``collate_fn``, if it has to be written again.

    In a base of another package ('mmyolo::...'), mmengine adds the scope to
    every dict with a type, and hands it on to the function as an argument.

    Args:
        cfg (Config): The float detector's config.
        name (str): How the student's config names it.
    """
    found = (cfg.get('train_dataloader') or {}).get('collate_fn')
    if '::' not in name or not found:
        return None
    return dict(_delete_=True, **found)


def imports(cfg: Any) -> dict:
    """``custom_imports``: those of the base config, and mmgor."""
    base = (cfg.get('custom_imports') or {}).get('imports') or []
    base = [base] if isinstance(base, str) else list(base)
    return dict(imports=[*(b for b in base if b != 'mmgor'), 'mmgor'])


def needs_offsets(model: Any) -> bool:
    """Whether a network has activations with a short negative tail.

    Args:
        model (nn.Module): The float detector.
    """
    names = {type(m).__name__.removesuffix('Me') for m in model.modules()}
    return any(name.lower() in _TAILED for name in names)

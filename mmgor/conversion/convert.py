"""From a float detector's config to the config of a low-bit student."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import DefaultScope
from torch import nn

from mmgor.datasets.data_folder import DataFolder, read_data_folder
from mmgor.io import config_reader
from mmgor.io.atomic_write import writing
from mmgor.io.checkpoint_reader import read_state_dict
from mmgor.io.class_names import loader_classes
from mmgor.io.config_output import check_output
from mmgor.listing import listed
from mmgor.quantization import quantized_layers
from mmgor.quantization.policy import QuantPolicy

from . import recipe
from .checkpoints import check_file, is_url, zoo_checkpoint
from .data import with_classes
from .new_style import as_text
from .parts import Part, detector_class, find_parts
from .request import Findings, Request
from .schedule import epochs_of
from .student_config import write_config
from .teachers import (
    Teaching,
    choose_heads,
    parse_teachers,
    stand_ins,
)
from .trial import (
    Trial,
    build,
    build_float,
    collate_function,
    first_step,
    fitting_weights,
    float_model,
    try_step,
)

NO_START = (
    'no checkpoint: give the float detector, trained; few bits learn little '
    'from random weights'
)


def convert(request: Request, say: Callable[[str], None]) -> Trial:
    """Write the config of a student and try one training step with it.

    The file appears only if the step worked.

    Args:
        request (Request): What is asked for.
        say (Callable): Gets a line for each thing that is found or chosen.

    Raises:
        FileNotFoundError: If a file does not exist.
        ValueError: If the config is no float detector or has nothing to
            quantize, a checkpoint is another model's, no KD head fits a
            teacher, or ``request.out`` is a config that is needed.
        RuntimeError: If a config can't be read, or a step fails.
    """
    policy = quant_settings(request)
    teachers = parse_teachers(request.teachers)
    data = None if request.data is None else read_data_folder(request.data)
    cfg = config_reader.read_config(request.config)
    check_output(request.out, cfg, [one.config for one in teachers])
    checkpoint = find_checkpoint(request, cfg)
    say(f'reading    {request.config}')
    config_reader.model_config(cfg)
    with as_text(request, cfg) as request:
        cfg = config_reader.read_config(request.config)
        trial = _convert(request, cfg, policy, teachers, data, checkpoint, say)
    return trial


def _convert(
    request: Request,
    cfg: Any,
    policy: dict,
    teachers: Sequence[Teaching],
    data: DataFolder | None,
    checkpoint: str | None,
    say: Callable[[str], None],
) -> Trial:
    """:func:`convert` for a text config, with all that was asked for read."""
    scope = cfg.get('default_scope') or 'mmdet'
    with DefaultScope.overwrite_default_scope(scope):
        detector_class(cfg['model'])
        sized = cfg if data is None else with_classes(cfg, data)
        built = build_float(sized)
        check_float(built)
        fewest = _fewest_classes(sized['model'])
        batch, probe = first_step(built, fewest, collate_function(cfg))
        parts = find_parts(float_model(cfg), built)
        check_parts(parts, cfg['model'])
        if recipe.needs_offsets(built):
            policy = with_offsets(policy, say)
        _say_depthwise(built, policy, say)
        _say_processes(cfg, say)
        with stand_ins(teachers) as specs:
            choice = None
            if teachers:
                say(f'trying     KD heads for {[t.config for t in teachers]}')
                classes = loader_classes(cfg, 'train_dataloader')
                classes = data.classes if data else classes
                choice = choose_heads(sized, specs, probe, batch, classes)
            found = Findings(
                cfg, parts, probe, policy, checkpoint, teachers, choice, data
            )
            student = write_config(request, found)
            say('trying     one training step on two images of noise')
            with writing(request.out) as part:
                part.write_text(student.text())
                trial = _try(part, checkpoint, batch, specs, say)
    _say_chosen(request, found, trial, say)
    return trial


def quant_settings(request: Request) -> dict[str, Any]:
    """The entry ``quant``.

    Raises:
        ValueError: If bits or target are not possible.
    """
    quant: dict[str, Any] = dict(w_bits=request.w_bits, a_bits=request.a_bits)
    if request.target is not None:
        quant['target'] = request.target
    QuantPolicy.from_config(quant)
    return quant


def with_offsets(quant: dict, say: Callable[[str], None]) -> dict:
    """The policy with an offset for inputs, unless the target has none."""
    offsets = dict(quant, input_quantizer=dict(type='LSQPlusQuantizer'))
    try:
        QuantPolicy.from_config(offsets)
    except ValueError:
        return quant
    say('offsets    inputs get an offset (LSQ+): SiLU and the like go below 0')
    return offsets


def find_checkpoint(request: Request, cfg: Any) -> str | None:
    """The float detector's weights: those asked for, those that its config
    loads, or those of its model zoo.

    Raises:
        FileNotFoundError: If a file was asked for that does not exist.
    """
    if request.checkpoint is not None:
        check_file(request.checkpoint, 'checkpoint')
        return request.checkpoint
    return cfg.get('load_from') or zoo_checkpoint(request.config)


def check_float(model: nn.Module) -> None:
    """Make sure that a detector is in float.

    Raises:
        ValueError: If it has quantized layers.
    """
    found = [*quantized_layers(model)]
    if found:
        raise ValueError(
            'expected the config of a float detector, got a student with '
            f'{len(found)} quantized layers ({listed(found, most=3)}). Change '
            'its quant=dict(...) by hand, or convert the config that it is '
            'based on.'
        )


def check_parts(parts: Sequence[Part], model: dict) -> None:
    """Make sure that there is something to quantize.

    Raises:
        ValueError: If no part has layers.
    """
    if not parts:
        raise ValueError(
            f'{config_reader.type_name(model)} has no backbone, neck or head '
            'with layers to quantize; expected convolutions or linears. '
            'docs/support.md lists the layers that have a quantized form.'
        )


def _try(
    path: Path,
    checkpoint: str | None,
    batch: dict,
    teachers: dict[str, dict],
    say: Callable[[str], None],
) -> Trial:
    cfg = config_reader.read_config(path)
    if teachers:
        cfg.model.teachers = teachers
    model: Any = build(cfg)
    if teachers:
        model.map_classes(loader_classes(cfg, 'train_dataloader'))
    if checkpoint is not None and not is_url(checkpoint):
        state, _ = read_state_dict(checkpoint)
        weights, loaded = fitting_weights(model, state, checkpoint)
        say(f'loaded     {loaded:.1%} of the weights from {checkpoint}')
        model.load_state_dict(weights, strict=False)
    return try_step(model, batch)


def _say_chosen(
    request: Request,
    found: Findings,
    trial: Trial,
    say: Callable[[str], None],
) -> None:
    """A line for everything that was chosen and found."""
    say(f'wrapped    {", ".join(part.path for part in found.parts)}')
    say(f'quantized  {trial.quantized} layers')
    weights = sum(share.weights for share in trial.shares)
    macs = sum(share.macs for share in trial.shares)
    say(
        f'in float   {weights:.1%} of the weights, {macs:.1%} of the '
        'multiply-accumulates'
    )
    for share in trial.shares:
        names = f' ({listed(share.layers, most=3)})' if share.layers else ''
        say(f'           {share.weights:.1%}: {share.cause}{names}')
    silent = found.probe.silent
    if silent:
        say(
            f'           never called: {listed(silent, most=3)}. Such a '
            'layer is unused, or other code reads its weight; its '
            'multiply-accumulates are not counted'
        )
    if found.choice is not None:
        for name, head in found.choice.kd_heads.items():
            say(f'KD head    {name}: {head["type"]}')
        for reason in found.choice.refused:
            say(f'           not {reason}')
    say(f'optimizer  {recipe.optimizer(found.cfg)[1]}')
    epochs = request.epochs or epochs_of(found.cfg)
    if epochs:
        say(f'schedule   {epochs} epoch{"s" if epochs > 1 else ""}')
    say(f'start      {found.checkpoint or NO_START}')
    files = [one.checkpoint for one in found.teachers]
    files.append(found.checkpoint or '')
    random = (
        ', random weights for those of URLs' if any(map(is_url, files)) else ''
    )
    say(f'step       loss {trial.loss:.4g}{random}')
    if trial.still:
        say(
            f'           {len(trial.still)} step sizes had no gradient: '
            f'{listed(trial.still, most=3)}'
        )


def _say_processes(cfg: Any, say: Callable[[str], None]) -> None:
    if 'MMSyncBN' in repr(cfg['model']):
        say(
            'processes  MMSyncBN trains in several processes only: start with '
            'torchrun and --launcher pytorch, or change it to SyncBN in your '
            'config'
        )


def _say_depthwise(
    model: nn.Module, quant: dict, say: Callable[[str], None]
) -> None:
    depthwise = [
        m
        for m in model.modules()
        if isinstance(m, nn.Conv2d) and 1 < m.groups == m.in_channels
    ]
    if depthwise and 'target' not in quant:
        say(
            f'depthwise  {len(depthwise)} convolutions; '
            'quant=dict(per_channel_depthwise=True) keeps more of their '
            'accuracy, but no integer runtime has it'
        )


def _fewest_classes(model: Any) -> int:
    """The smallest ``num_classes`` of a model's config, at any depth."""
    found: list[int] = []

    def search(value: Any) -> None:
        if isinstance(value, dict):
            count = value.get('num_classes')
            if isinstance(count, int):
                found.append(count)
            for inner in value.values():
                search(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                search(inner)

    search(model)
    return min(found, default=2)

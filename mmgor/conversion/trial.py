"""Tries a student's config: one training step on two images of noise."""

import copy
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from mmdet.models.data_preprocessors import (
    MultiBranchDataPreprocessor as _Branches,
)
from mmdet.testing import demo_mm_inputs
from mmengine.config import ConfigDict
from mmengine.device import get_device
from mmengine.logging import MessageHub
from mmengine.registry import FUNCTIONS, init_default_scope
from mmengine.structures import InstanceData
from torch import nn

from mmgor.dense_heads.levels import as_list, map_strides
from mmgor.distillation import Recorder
from mmgor.hooks.student import run_losses
from mmgor.image_channels import COLOUR, image_channels
from mmgor.io.config_reader import loader_datasets, model_config
from mmgor.quantization import (
    calibrate,
    counting_macs,
    quantized_layers,
    uncalibrated_layers,
)
from mmgor.quantization.convert import call_layers, find_layers
from mmgor.quantization.coverage import FloatShare, float_shares
from mmgor.registry import DATASETS, MODELS, find
from mmgor.trial_run import trial_run

#: Sides of the images, in pixels. Some detectors can not take the smaller.
SIDES = (256, 512)
_BOXES = 4
# mmdet draws the semantic map as 8-bit integers.
_MOST_CLASSES = 80
#: A checkpoint that has less of the model's weights is refused.
LEAST_LOADED = 0.5
_BRANCHES = ('sup', 'unsup_teacher', 'unsup_student')
NOT_BUILT = 'the float detector itself could not be built'
NO_STEP = (
    'the float detector itself could not take a training step on two images '
    'of noise'
)


@dataclass
class FloatProbe:
    """What a forward pass of the float detector has shown.

    Attributes:
        silent (list[str]): Paths of layers that could be quantized but did
            not run.
        strides (list[int]): Strides of the maps that the neck gives, or the
            backbone if there is no neck.
        channels (list[int]): Channels of these maps.
        tap (str): 'neck' or 'backbone'; '' if neither gives maps.
    """

    silent: list[str] = field(default_factory=list)
    strides: list[int] = field(default_factory=list)
    channels: list[int] = field(default_factory=list)
    tap: str = ''


@dataclass
class Trial:
    """What one training step of a student has shown.

    Attributes:
        loss (float): The sum of all losses.
        still (list[str]): Paths of step sizes without a finite gradient.
        shares (list[FloatShare]): What stays in float, by cause.
        quantized (int): Number of quantized layers.
    """

    loss: float
    still: list[str]
    shares: list[FloatShare]
    quantized: int


def float_model(cfg: Any) -> ConfigDict:
    """The model's config without files of weights, at any depth, and with
    batches of one size."""
    model = model_config(cfg)
    _drop_files(model)
    preprocessor = model.get('data_preprocessor') or {}
    for augment in preprocessor.get('batch_augments') or []:
        if 'random_size_range' in augment:
            augment['random_size_range'] = (SIDES[0], SIDES[0])
    return model


def build(cfg: Any) -> nn.Module:
    """Build the model of a config, with random weights, on the device that
    training would use.

    Args:
        cfg (Config): Complete config; its scope becomes the default scope.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model = MODELS.build(float_model(cfg))
    model.init_weights()
    return model.to(get_device())


def build_float(cfg: Any) -> nn.Module:
    """:func:`build` for a stock detector, which may raise anything.

    Raises:
        RuntimeError: If it can't be built.
    """
    try:
        return build(cfg)
    except Exception as error:
        raise RuntimeError(
            f'{NOT_BUILT} ({type(error).__name__}: {error}).'
        ) from error


def noise_batch(
    num_classes: int,
    side: int,
    with_masks: bool,
    collate: Any = None,
    channels: int = COLOUR,
) -> Any:
    """Two images of noise with boxes, proposals and names of classes, as a
    train dataloader gives them.

    Args:
        num_classes (int): Labels are below it.
        side (int): Height and width in pixels.
        with_masks (bool): With masks and a semantic map, too. Detectors that
            learn from boxes may not be able to take them.
        collate (Callable, optional): Makes a batch of a list of images.
            Default: what mmengine's dataloaders do.
        channels (int): 1 for grey images.
    """
    batch = demo_mm_inputs(
        2,
        [(channels, side, side)] * 2,
        num_items=[_BOXES] * 2,
        num_classes=min(max(2, num_classes), _MOST_CLASSES),
        with_mask=with_masks,
        with_semantic=with_masks,
        use_box_type=True,
    )
    names = tuple(map(str, range(min(num_classes, _MOST_CLASSES))))
    for sample in batch['data_samples']:
        sample.set_metainfo(
            # For detectors with a language model, and for a teacher's boxes.
            dict(text=names, homography_matrix=np.eye(3, dtype=np.float32))
        )
        truth = sample.gt_instances
        truth.labels.clamp_(max=num_classes - 1)
        boxes = truth.bboxes.tensor
        scores = boxes.new_ones(len(boxes))
        sample.proposals = InstanceData(bboxes=boxes, scores=scores)
    if collate is None:
        return batch
    pairs = zip(batch['inputs'], batch['data_samples'])
    return collate([dict(inputs=x, data_samples=s) for x, s in pairs])


def branched(batch: dict) -> dict:
    """The batch in every branch of a semi-supervised detector.

    Args:
        batch (dict): From :func:`noise_batch`; loses its proposals, which a
            teacher would take for its own.
    """
    for sample in batch['data_samples']:
        del sample.proposals
    return {
        key: {branch: copy.deepcopy(value) for branch in _BRANCHES}
        for key, value in batch.items()
    }


def collate_function(cfg: Any) -> Any:
    """What makes a training batch of a list of images; None for mmengine's
    own.

    Args:
        cfg (Config): With a ``train_dataloader``, or without.

    Raises:
        ValueError: If no such function is registered.
    """
    found = (cfg.get('train_dataloader') or {}).get('collate_fn')
    if not found:
        return None
    arguments = dict(found)
    kind = arguments.pop('type')
    # It is registered together with the data sets of its library.
    for dataset in loader_datasets(cfg, 'train_dataloader'):
        find(dataset.get('type'), registry=DATASETS)
    function = FUNCTIONS.get(kind) if isinstance(kind, str) else kind
    if function is None:
        raise ValueError(
            f'train_dataloader.collate_fn is {kind!r}, which is not '
            'registered; expected a function such as yolov5_collate. Import '
            'its module with custom_imports.'
        )
    return partial(function, **arguments)


def first_step(
    model: Any, num_classes: int, collate: Any
) -> tuple[Any, FloatProbe]:
    """A batch that a float detector can train on, and what it showed.

    Args:
        model (nn.Module): Float detector.
        num_classes (int): Labels are below it.
        collate (Callable, optional): From :func:`collate_function`.

    Raises:
        RuntimeError: If it can't be trained on any batch of noise.
    """
    # Some assigners of MMYOLO, and YOLOX's batches of several sizes, ask how
    # far a training is.
    for count in ('epoch', 'iter'):
        MessageHub.get_current_instance().update_info(count, 0)
    channels = image_channels(model) or COLOUR
    errors: list[str] = []
    for side, with_masks in product(SIDES, (False, True)):
        try:
            batch = noise_batch(
                num_classes, side, with_masks, collate, channels
            )
            if isinstance(model.data_preprocessor, _Branches):
                batch = branched(batch)
            return batch, probe_float(model, batch)
        except Exception as error:  # stock code may raise anything
            text = ' '.join(str(error).split())
            errors.append(f'{type(error).__name__}: {text}')
    reasons = '; '.join(dict.fromkeys(errors))
    raise RuntimeError(f'{NO_STEP} ({reasons}).')


def probe_float(model: Any, batch: dict) -> FloatProbe:
    """Run a float detector up to its losses.

    Args:
        model (nn.Module): Float detector.
        batch (dict): From :func:`noise_batch`.

    Raises:
        Exception: Whatever stock code raises that can't take the batch.
    """
    tap = next((t for t in ('neck', 'backbone') if hasattr(model, t)), '')
    seen: dict[str, Any] = {}
    call_layers(model)
    with trial_run(model), counting_macs(model) as macs:
        recorder = Recorder(model, [tap] if tap else [])
        with torch.no_grad(), recorder:
            data = model.data_preprocessor(copy.deepcopy(batch), True)
            model(**data, mode='loss')
            seen[tap] = recorder[tap] if tap else []
    found = FloatProbe([n for n in find_layers(model) if not macs.get(n)])
    maps = as_list(seen[tap])
    if maps and all(getattr(x, 'ndim', None) == 4 for x in maps):
        size = tuple(data['inputs'].shape[-2:])
        shapes = [(x.shape[-2], x.shape[-1]) for x in maps]
        found.strides = map_strides(size, shapes)
        found.channels = [x.shape[1] for x in maps]
        found.tap = tap
    return found


def try_step(model: Any, batch: dict) -> Trial:
    """Calibrate a student and take the gradients of its losses once.

    Args:
        model (nn.Module): With quantized layers.
        batch (dict): From :func:`noise_batch`.

    Raises:
        RuntimeError: If the loss is not finite.
    """
    names = uncalibrated_layers(model)
    model.train()
    with counting_macs(model) as macs:
        calibrate(
            model,
            [copy.deepcopy(batch)],
            lambda one: run_losses(model, one),
            names,
        )
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    loss, _ = model.parse_losses(model(**data, mode='loss'))
    if not torch.isfinite(loss):
        raise RuntimeError(
            f'expected a finite loss in the first step, got {float(loss)}.'
        )
    loss.backward()
    still = [
        name
        for name, parameter in model.named_parameters()
        if '_quantizer.' in name
        and parameter.requires_grad
        and not _has_gradient(parameter)
    ]
    layers = quantized_layers(model)
    return Trial(loss.item(), still, float_shares(model, macs), len(layers))


def fitting_weights(
    model: nn.Module, state: dict[str, Any], checkpoint: str
) -> tuple[dict[str, Any], float]:
    """The weights of a float checkpoint that training would load.

    Args:
        model (nn.Module): The student.
        state (dict): Keys to tensors, from the checkpoint.
        checkpoint (str): Its file or URL, for the message.

    Returns:
        tuple[dict, float]: Keys to tensors, and the share of the model's
        weights that they are, 0 to 1.

    Raises:
        ValueError: If the share is less than :data:`LEAST_LOADED`.
    """
    own = {
        k: v for k, v in model.state_dict().items() if '_quantizer.' not in k
    }
    fitting = {
        k: v for k, v in state.items() if k in own and v.shape == own[k].shape
    }
    count = sum(own[k].numel() for k in fitting)
    share = count / max(1, sum(v.numel() for v in own.values()))
    if share < LEAST_LOADED:
        raise ValueError(
            f'{checkpoint} has {share:.1%} of the weights of the config, '
            f'expected at least {LEAST_LOADED:.0%}: it is a checkpoint of '
            'another model. Give the one that the config was trained with.'
        )
    return fitting, share


def _has_gradient(parameter: nn.Parameter) -> bool:
    gradient = parameter.grad
    return gradient is not None and bool(torch.isfinite(gradient).all())


def _drop_files(value: Any) -> None:
    """Remove what names files to start from; other initialisers stay."""
    if isinstance(value, dict):
        if has_files(value):
            value.pop('init_cfg')
        value.pop('pretrained', None)
        value.pop('teacher_ckpt', None)
        for inner in value.values():
            _drop_files(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _drop_files(inner)


def has_files(config: dict) -> bool:
    """Whether a module's config names files of weights to start from."""
    starts = config.get('init_cfg')
    listed = starts if isinstance(starts, (list, tuple)) else [starts]
    return any(
        isinstance(one, dict) and one.get('type') == 'Pretrained'
        for one in listed
    )

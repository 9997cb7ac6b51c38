"""What two ranks compute together, and one process with all their images."""

import copy

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper

from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from mmgor.weighting.theta_steps import move_thetas
from tests.support.models import make_batch, student_cfg

# Losses that are a mean over images; PKD, the default, normalises a batch.
HEADS = dict(
    cls=dict(type='LogitKDHead'),
    score=dict(type='ScoreKDHead'),
    box=dict(type='BoxKDHead'),
    neck=dict(
        type='FeatureKDHead',
        student_channels=16,
        teacher_channels=24,
        loss=dict(type='FeatureMSELoss'),
    ),
)


def part(batch, index, parts=2):
    """Every ``parts``-th image of a batch, from ``index`` on."""
    return dict(
        inputs=batch['inputs'][index::parts],
        data_samples=batch['data_samples'][index::parts],
    )


def same_boxes():
    """Four images with the same boxes: RetinaNet divides its losses by the
    positive anchors of a rank, which are then as many on each."""
    batch = make_batch(size=4)
    for sample in batch['data_samples']:
        sample.gt_instances = batch['data_samples'][0].gt_instances
    return batch


def frozen_norms(teacher):
    """A calibrated W4A4 student whose batch norm uses its averages, with its
    game behind the balanced start; and the batch that it was calibrated on."""
    torch.manual_seed(0)
    cfg = student_cfg(teacher, kd_heads=HEADS)
    cfg.backbone.update(
        norm_eval=True, norm_cfg=dict(type='BN', requires_grad=False)
    )
    model = MODELS.build(cfg)
    model.init_weights()
    model.map_classes(None)
    game = model.gor_weighting
    game.count.fill_(game.init_iters)
    model.train()
    batch = same_boxes()
    calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    return model, batch


def step(model, forward, batches):
    """One step of SGD on these batches.

    Returns:
        dict: Name -> gradient, before the step; and the thetas after it.
    """
    rate = 0.1
    wrapper = OptimWrapper(
        torch.optim.SGD(model.parameters(), lr=rate),
        accumulative_counts=len(batches),
    )
    wrapper.initialize_count_status(model, 0, len(batches))
    seen = {}

    def look(*_):
        seen.update(
            (name, p.grad.clone())
            for name, p in model.named_parameters()
            if p.grad is not None
        )

    wrapper.optimizer.register_step_pre_hook(look)
    move_thetas(model.gor_weighting, wrapper.optimizer, rate)
    model.gor_weighting.moved_by_hook = True
    for batch in batches:
        with wrapper.optim_context(forward):
            losses = forward(**batch, mode='loss')
        loss, _ = model.parse_losses(losses)
        wrapper.update_params(loss)
    for name in ('theta_task', 'theta_kd'):
        seen[name] = getattr(model.gor_weighting, name).detach()
    return seen


def differences(got, want):
    """The largest difference of each gradient, relative to the largest value
    that it should have. The gradient of an input's step size depends on how
    many images are seen at once: see ``test_distributed.py``."""
    assert got.keys() == want.keys()
    found = {}
    for name, value in want.items():
        other = got[name]
        if name.endswith('input_quantizer.log_scale'):
            other = other / 2**0.5
        size = value.abs().max().clamp(min=1e-6)
        found[name] = ((other - value).abs().max() / size).item()
    return found


def against_one_process(teacher, rank):
    """Two ranks, and two accumulated batches, against one large batch.

    Returns:
        dict: 'ranks' and 'accumulated' -> differences of all gradients;
        'thetas' -> the thetas after a step.
    """
    model, batch = frozen_norms(teacher)
    alone, first, second = (copy.deepcopy(model) for _ in range(3))
    whole = step(alone, alone, [batch])
    ddp = MMDistributedDataParallel(
        model, broadcast_buffers=False, find_unused_parameters=False
    )
    parts = step(model, ddp, [part(batch, rank)])
    ranks = differences(parts, whole)
    for name in ('cls', 'score', 'box'):
        for twin in (first, second):
            # Accumulated losses have a divisor each; without weights they are
            # the same.
            twin.kd_heads[name].foreground_gamma = 0.0
    whole = step(first, first, [batch])
    halves = [part(batch, i) for i in range(2)]
    accumulated = differences(step(second, second, halves), whole)
    thetas = [whole['theta_task'].item(), whole['theta_kd'].item()]
    return dict(ranks=ranks, accumulated=accumulated, thetas=thetas)

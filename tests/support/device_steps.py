"""Training steps on a CUDA device, real or virtual, and what waited for it."""

import copy
from collections import Counter
from types import SimpleNamespace

import torch
from mmengine.optim import OptimWrapper
from mmengine.structures import InstanceData

from mmgor.hooks import NonFiniteLossHook
from mmgor.quantization import BaseQuantizer
from mmgor.registry import MODELS
from mmgor.weighting.theta_steps import move_thetas
from tests.support.models import make_batch


def with_ranges(model):
    """Set step sizes of 1/8 instead of calibrating, which takes longer."""
    for quantizer in model.modules():
        if isinstance(quantizer, BaseQuantizer):
            quantizer.choose_range(signed=True)
            steps = torch.full((quantizer.num_scales,), 0.125)
            quantizer.set_ranges(steps, 0 * steps, -steps, steps)
    return model


def built(cfg):
    """The student of this config, in training mode on the device."""
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    model.map_classes(None)
    return with_ranges(model).train().to('cuda')


def batch_on_cuda(**kwargs):
    batch = make_batch(**kwargs)
    batch['inputs'] = batch['inputs'].cuda()
    for sample in batch['data_samples']:
        for key in ('gt_instances', 'ignored_instances'):
            found = getattr(sample, key)
            moved = {name: value.cuda() for name, value in found.items()}
            setattr(sample, key, InstanceData(**moved))
    return batch


def steps_of(model, batch, hooks=(), steps=1):
    """Run training steps with the hooks; return the last loss."""
    wrapper = OptimWrapper(torch.optim.AdamW(model.parameters(), lr=1e-3))
    logger = SimpleNamespace(warning=print, info=print)
    runner = SimpleNamespace(
        model=model, optim_wrapper=wrapper, logger=logger, iter=0
    )
    for hook in hooks:
        if isinstance(hook, NonFiniteLossHook):
            hook.before_train(runner)
    thetas = dict(model.gor_weighting.named_parameters())
    if thetas:
        move_thetas(model.gor_weighting, wrapper.optimizer, 0.1)
    for _ in range(steps):
        for hook in hooks:
            hook.before_train_iter(runner, 0, batch)
        loss, log = model.parse_losses(model(**batch, mode='loss'))
        wrapper.update_params(loss)
        for hook in hooks:
            hook.after_train_iter(runner, 0, outputs=log)
        runner.iter += 1
    return loss


def by_file(waits):
    counted = Counter()
    for line, count in waits.items():
        counted[line.split(':')[0]] += count
    return dict(counted)

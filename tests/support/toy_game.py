"""Tiny models with a balancer and two losses of known size, and a run."""

import math

import torch
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from mmgor.registry import MODELS

PARAMWISE = dict(custom_keys={'gor_weighting.': dict(decay_mult=0.0)})


class Numbers(Dataset):
    metainfo: dict = {}

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return dict(inputs=torch.ones(1))


class Toy(BaseModel):
    """The distillation loss is constant but for one change by a factor."""

    def __init__(self, change_at, factor):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.gor_weighting = MODELS.build(
            dict(type='GoRWeighting', init_iters=2)
        )
        self.teachers = {}
        self.change_at, self.factor, self.step = change_at, factor, 0
        self.distances = []

    def map_classes(self, classes):
        """There are no KD heads that need them."""

    def class_teachers(self):
        return []

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.step += 1
        kd = 3.0 if self.step <= self.change_at else 3.0 * self.factor
        # Its value is 0 and its gradient large: clipping must not slow the
        # thetas.
        pull = 1e3 * (self.weight - self.weight.detach()).sum()
        out = self.gor_weighting(
            dict(loss_cls=0.5 + pull), dict(loss_kd_a=kd + pull)
        )
        game = self.gor_weighting
        rest = math.log(kd / game.units[1].item())
        self.distances.append(abs(game.theta_kd.item() - rest))
        return out


class Constant(Toy):
    """The losses and their gradients at the features have a ratio of 10."""

    def __init__(self, weighting):
        super().__init__(change_at=0, factor=1.0)
        self.gor_weighting = MODELS.build(weighting)
        self.shares = []

    def forward(self, inputs, data_samples=None, mode='loss'):
        shared = 2 * self.weight
        pull = 1 + 1e-3 * (shared - shared.detach()).sum()
        out = self.gor_weighting(
            dict(loss_cls=0.5 * pull), dict(loss_kd_a=5.0 * pull), [shared]
        )
        kd = out['loss_kd_a'].item()
        self.shares.append(kd / (kd + out['loss_cls'].item()))
        return out


class Falling(Constant):
    """The distillation loss halves in every call."""

    def forward(self, inputs, data_samples=None, mode='loss'):
        self.step += 1
        pull = 1 + 1e-3 * (self.weight - self.weight.detach()).sum()
        kd = 2.0**-self.step
        return self.gor_weighting(
            dict(loss_cls=0.5 * pull), dict(loss_kd_a=kd * pull)
        )


def run(
    tmp_path,
    optimizer,
    iters,
    clip=None,
    accumulate=1,
    model=None,
    load_from=None,
    resume=False,
    paramwise=PARAMWISE,
    hooks=(),
    **hook,
):
    model = model or Toy(change_at=iters // 2, factor=0.5)
    runner = Runner(
        model=model,
        load_from=load_from,
        resume=resume,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=Numbers(),
            sampler=dict(type='InfiniteSampler', shuffle=False),
            batch_size=1,
            num_workers=0,
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iters),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=optimizer,
            clip_grad=clip,
            accumulative_counts=accumulate,
            paramwise_cfg=paramwise,
        ),
        param_scheduler=dict(
            type='LinearLR',
            start_factor=0.001,
            by_epoch=False,
            begin=0,
            end=iters,
        ),
        custom_hooks=[dict(type='GoRWeightHook', **hook), *hooks],
        default_hooks=dict(
            checkpoint=None, logger=dict(type='LoggerHook', interval=1)
        ),
        experiment_name=f'toy{abs(hash((str(tmp_path), iters)))}',
        default_scope='mmdet',
        log_level='ERROR',
    )
    runner.train()
    return runner, model

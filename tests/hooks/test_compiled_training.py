"""mmengine's ``compile`` compiles a whole step, with the optimizer's hooks."""

import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from mmgor.quantization.convert import quantize_layers
from mmgor.quantization.policy import QuantPolicy
from mmgor.quantization.quantizers import compiled
from mmgor.registry import MODELS


class Compiled(BaseModel):
    """A balancer and quantized layers, one of which is called twice."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.shared = nn.Linear(2, 2)
        policy = QuantPolicy(input_quantizer=dict(type='MinMaxQuantizer'))
        quantize_layers(self, policy, set(), dict(shared=2))
        self.gor_weighting = MODELS.build(
            dict(type='GoRWeighting', init_iters=1)
        )
        self.seen = []

    def map_classes(self, classes):
        """There are no KD heads that need them."""

    def class_teachers(self):
        return []

    def stock_loss(self, inputs):
        once = self.shared(self.linear(inputs))
        return dict(loss=self.shared(once).square().mean())

    def forward(self, inputs, mode='loss'):
        task = self.stock_loss(inputs)
        kd = dict(loss_kd_a=self.linear(inputs).abs().mean())
        return self.gor_weighting(task, kd)


def train(tmp_path, name, **changes):
    torch.manual_seed(0)
    data = torch.randn(4, 2)
    dataset = [dict(inputs=x) for x in data]
    model = Compiled()
    loader = DataLoader(
        dataset, 2, sampler=DefaultSampler(dataset, shuffle=False)
    )
    decay = {'linear.bias': dict(decay_mult=0.0)}
    runner = Runner(
        model,
        str(tmp_path / name),
        loader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(
            type='OptimWrapper',
            optimizer=dict(type='SGD', lr=0.01, weight_decay=0.1),
            paramwise_cfg=dict(custom_keys=decay),
        ),
        custom_hooks=[
            dict(type='QuantCalibrationHook'),
            dict(type='GoRWeightHook', theta_lr=0.1),
            dict(type='NonFiniteLossHook'),
        ],
        default_hooks=dict(checkpoint=None),
        default_scope='mmdet',
        experiment_name=f'{tmp_path.name}{name}',
        log_level='ERROR',
        cfg=Config(changes),
    )
    runner.train()
    return model.state_dict()


def test_a_compiled_run_is_the_plain_one(tmp_path, monkeypatch):
    want = train(tmp_path, 'plain')
    monkeypatch.delenv('TORCHDYNAMO_DISABLE')
    # Compiling the kernels themselves takes long; test_compiled covers it.
    for kernel in (compiled._forward, compiled._backward):
        monkeypatch.setattr(kernel, '_compiled', kernel.function)
    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters['stats']
    before = graphs['unique_graphs']
    got = train(tmp_path, 'compiled', compile=dict(backend='eager'))
    assert graphs['unique_graphs'] > before
    torch._dynamo.reset()
    for key, value in want.items():
        torch.testing.assert_close(got[key], value, msg=key)

"""Two gloo processes train together and end with the same weights."""

import os
import socket
from types import SimpleNamespace

import pytest
import torch
import torch.multiprocessing as mp
from mmdet.utils import register_all_modules
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper

from mmgor.hooks import NonFiniteLossHook
from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from mmgor.weighting.theta_steps import theta_step
from tests.support.models import make_batch, student_cfg


def half(batch, rank):
    """This rank's images."""
    return dict(
        inputs=batch['inputs'][rank::2],
        data_samples=batch['data_samples'][rank::2],
    )


def worker(rank, port, teacher, out):
    os.environ.update(
        MASTER_ADDR='127.0.0.1',
        MASTER_PORT=str(port),
        RANK=str(rank),
        WORLD_SIZE='2',
        LOCAL_RANK=str(rank),
    )
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo')
    register_all_modules()
    torch.manual_seed(0)
    weighting = dict(type='GoRWeighting', init_iters=3)
    cfg = student_cfg(teacher, gor_weighting=weighting)
    for part in ('backbone', 'neck', 'bbox_head'):
        cfg[part]['quant'] = dict(cfg[part]['quant'], tensors='all')
    model = MODELS.build(cfg)
    model.init_weights()
    model.map_classes(None)
    batch = half(make_batch(size=4), rank)
    # The images of the two ranks have very different ranges.
    batch['inputs'] *= 1 + rank
    calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    ddp = MMDistributedDataParallel(
        model, broadcast_buffers=False, find_unused_parameters=False
    )
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    hook = NonFiniteLossHook()
    runner = SimpleNamespace(
        model=ddp,
        optim_wrapper=wrapper,
        iter=0,
        logger=SimpleNamespace(warning=lambda _: None, info=lambda _: None),
    )
    hook.before_train(runner)
    hook.before_train_iter(runner)
    wrapper.optimizer.register_step_pre_hook(
        theta_step(model.gor_weighting, 0.1)
    )
    # mmengine's DDP calls this at the end of its own train_step.
    with pytest.raises(RuntimeError, match='no hook moves the thetas of GoR'):
        model.parse_losses(dict(loss=torch.ones(())))
    model.gor_weighting.moved_by_hook = True  # as GoRWeightHook says
    for step in range(8):
        # In the third step the loss of rank 1 is not finite.
        inputs = batch['inputs'].clone()
        if rank == 1 and step == 2:
            inputs[0] = float('nan')
        losses = ddp(inputs, batch['data_samples'], mode='loss')
        loss, outputs = model.parse_losses(losses)
        wrapper.update_params(loss)
        hook.after_train_iter(runner, step, outputs=outputs)
        if step == 2:
            assert hook.consecutive == 1
    torch.save(model.state_dict(), f'{out}/rank{rank}.pth')
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_end_equal(teacher_spec, tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    mp.spawn(worker, (port, teacher_spec, str(tmp_path)), nprocs=2)
    first, second = (
        torch.load(tmp_path / f'rank{rank}.pth') for rank in range(2)
    )
    for key, value in first.items():
        assert torch.isfinite(value).all() and second[key].isfinite().all()
        # Batch-norm statistics differ per rank, as everywhere in mmdet.
        if 'running_' not in key:
            assert torch.equal(value, second[key]), key
    # After the balanced start the game moved the thetas.
    assert first['gor_weighting.count'].tolist() == [7, 7]

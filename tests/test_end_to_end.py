"""Train, resume and test with mmengine's Runner on generated scenes."""

import json

import pytest
import torch
from mmdet.apis import init_detector
from mmengine.runner import Runner

from mmgor.quantization import quantized_layers
from tests.support.models import retinanet_cfg
from tests.support.training import scene_teacher, tiny_scenes, training_config


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    return tiny_scenes(tmp_path_factory.mktemp('scenes'))


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    return scene_teacher(tmp_path_factory.mktemp('teacher5'))


def train(config):
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def trained(scenes, teacher, tmp_path_factory):
    """Work directory of a run of two epochs."""
    work_dir = tmp_path_factory.mktemp('straight')
    config = training_config(scenes, work_dir, teacher, epochs=2)
    return train(config), work_dir


def test_artefacts(trained):
    _, work_dir = trained
    table = json.loads((work_dir / 'quant_table.json').read_text())
    assert {row['w_bits'] for row in table['layers']} == {4, 8}
    assert (work_dir / 'gor_weights.png').is_file()


def test_checkpoint_holds_tensors_only(trained):
    _, work_dir = trained
    state = torch.load(work_dir / 'epoch_2.pth', weights_only=True)
    assert all(
        isinstance(v, torch.Tensor) for v in state['state_dict'].values()
    )
    assert not any('teacher' in key for key in state['state_dict'])


def test_resume_continues_exactly(trained, scenes, teacher, tmp_path):
    """Stopped after epoch 1 and resumed, a run ends with the same weights."""
    straight, work_dir = trained
    config = training_config(scenes, tmp_path / 'resumed', teacher, epochs=2)
    config.resume, config.load_from = True, str(work_dir / 'epoch_1.pth')
    resumed = train(config)
    assert (resumed.iter, resumed.epoch) == (straight.iter, straight.epoch)
    want, got = straight.model.state_dict(), resumed.model.state_dict()
    assert set(want) == set(got)
    for key, value in want.items():
        torch.testing.assert_close(got[key], value, rtol=0, atol=0, msg=key)
    groups = zip(
        straight.optim_wrapper.optimizer.state_dict()['state'].values(),
        resumed.optim_wrapper.optimizer.state_dict()['state'].values(),
    )
    for a, b in groups:
        torch.testing.assert_close(a['exp_avg'], b['exp_avg'], rtol=0, atol=0)


def test_resume_does_not_calibrate_again(
    trained, scenes, teacher, tmp_path, monkeypatch
):
    def never(*_):
        raise AssertionError('calibrated again')

    _, work_dir = trained
    config = training_config(scenes, tmp_path / 'again', teacher, epochs=2)
    config.resume, config.load_from = True, str(work_dir / 'epoch_1.pth')
    monkeypatch.setattr('mmgor.hooks.quant_calibration_hook.calibrate', never)
    train(config)


def test_resume_from_another_config_is_an_error(
    trained, scenes, teacher, tmp_path
):
    _, work_dir = trained
    config = training_config(scenes, tmp_path / 'other', teacher)
    config.model.kd_heads.pop('neck')
    config.resume, config.load_from = True, str(work_dir / 'epoch_1.pth')
    with pytest.raises(RuntimeError, match='file of another config'):
        train(config)


def test_resume_with_other_bits_is_an_error(
    trained, scenes, teacher, tmp_path
):
    _, work_dir = trained
    config = training_config(scenes, tmp_path / 'w8', teacher)
    config.model.neck.quant = dict(w_bits=8, a_bits=8)
    config.resume, config.load_from = True, str(work_dir / 'epoch_1.pth')
    with pytest.raises(
        RuntimeError, match=r'8 bits for neck\..*got a range up to 7'
    ):
        train(config)


def test_iterations_with_an_infinite_sampler(scenes, teacher, tmp_path):
    """Calibration must not use up the loader that training draws from."""
    config = training_config(scenes, tmp_path / 'iters', teacher)
    config.train_cfg = dict(
        type='IterBasedTrainLoop', max_iters=3, val_interval=9
    )
    config.train_dataloader.sampler = dict(type='InfiniteSampler')
    config.default_hooks.checkpoint.by_epoch = False
    assert train(config).iter == 3


def test_step_sizes_never_decay(scenes, teacher, tmp_path):
    config = training_config(scenes, tmp_path / 'decay', teacher)
    config.optim_wrapper.pop('paramwise_cfg')
    runner = train(config)
    stock, own = runner.optim_wrapper.optimizer.param_groups
    assert (stock['weight_decay'], own['weight_decay']) == (0.05, 0)
    spared = {
        id(parameter)
        for name, parameter in runner.model.named_parameters()
        if '_quantizer.' in name or name.startswith('gor_weighting.theta')
    }
    assert {id(p) for p in own['params']} == spared


def test_start_from_other_bits_calibrates_anew(
    trained, scenes, teacher, tmp_path
):
    """Staged bits: W3 starts from the weights of W4, not from its scales."""
    _, work_dir = trained
    config = training_config(scenes, tmp_path / 'w3', teacher)
    for part in ('backbone', 'neck', 'bbox_head'):
        config.model[part].quant = dict(w_bits=3, a_bits=3)
    config.load_from = str(work_dir / 'epoch_2.pth')
    model = train(config).model
    bits = {
        int(layer.weight_quantizer.qmax)
        for layer in quantized_layers(model).values()
    }
    assert bits == {3, 127}


def test_test_gives_a_map(trained, scenes, teacher, tmp_path):
    _, work_dir = trained
    config = training_config(scenes, tmp_path / 'test', teacher)
    config.load_from = str(work_dir / 'epoch_2.pth')
    config.model.teachers.big.checkpoint = 'gone.pth'
    metrics = Runner.from_cfg(config).test()
    # The score threshold is 0, so even an untrained head finds boxes.
    assert 0 <= metrics['coco/bbox_mAP'] <= 1


def test_init_detector_needs_no_teacher(trained, scenes, teacher, tmp_path):
    _, work_dir = trained
    config = training_config(scenes, tmp_path / 'api', teacher)
    config.model.teachers.big.checkpoint = 'gone.pth'
    model = init_detector(
        config, str(work_dir / 'epoch_2.pth'), device='cpu', palette='random'
    )
    assert type(model).__name__ == 'GoRRetinaNet'


def test_ema_validates_with_averaged_scales(scenes, teacher, tmp_path):
    config = training_config(scenes, tmp_path / 'ema', teacher, epochs=2)
    config.custom_hooks.append(
        dict(type='EMAHook', momentum=0.5, update_buffers=True)
    )
    config.train_cfg.val_interval = 1
    runner = train(config)
    hook = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    averaged = hook.ema_model.module.state_dict()
    live = runner.model.state_dict()
    moved = 0
    for key, value in live.items():
        if key.endswith(('qmin', 'qmax')):
            assert torch.equal(averaged[key], value), key
        if key.endswith('log_scale'):
            moved += not torch.equal(averaged[key], value)
    assert moved > 10


def test_every_tensor_on_a_grid(scenes, teacher, tmp_path):
    """Quantizers of tensors are calibrated, trained, averaged and resumed like
    all others."""
    config = training_config(scenes, tmp_path / 'all', teacher, epochs=1)
    for part in ('backbone', 'neck', 'bbox_head'):
        config.model[part].quant.tensors = 'all'
    config.custom_hooks += [
        dict(type='EMAHook', momentum=0.5, update_buffers=True)
    ]
    runner = train(config)
    hook = next(h for h in runner.hooks if type(h).__name__ == 'EMAHook')
    averaged = hook.ema_model.module.state_dict()
    live = runner.model.state_dict()
    scales = {k for k in live if '.tensor_quantizer.' in k and 'log_' in k}
    assert len(scales) > 10
    assert all(live[k.replace('log_scale', 'qmax')] > 0 for k in scales)
    assert any((live[k] != averaged[k]).any() for k in scales)
    config.train_cfg.max_epochs, config.resume = 2, True
    resumed = train(config)
    assert resumed.epoch == 2
    moved = resumed.model.state_dict()
    assert any((live[k] != moved[k]).any() for k in scales)


def test_wrong_load_from_is_an_error(scenes, teacher, tmp_path):
    path = tmp_path / 'foreign.pth'
    torch.save(dict(state_dict={'foo': torch.zeros(1)}), path)
    config = training_config(scenes, tmp_path / 'foreign', teacher)
    config.load_from = str(path)
    with pytest.raises(RuntimeError, match='matches nothing'):
        train(config)


def test_missing_teacher_file_stops_before_training(scenes, teacher, tmp_path):
    config = training_config(scenes, tmp_path / 'noteacher', teacher)
    config.model.teachers.big.checkpoint = 'gone.pth'
    with pytest.raises(FileNotFoundError, match="teacher 'big' not found"):
        train(config)


def test_a_teacher_of_other_classes_stops_before_training(
    scenes, teacher, tmp_path
):
    state = torch.load(teacher['checkpoint'], weights_only=True)
    path = tmp_path / 'named.pth'
    meta = dict(dataset_meta=dict(classes=['a', 'b', 'c', 'd', 'e']))
    torch.save(dict(state_dict=state, meta=meta), path)
    config = training_config(scenes, tmp_path / 'classes', teacher)
    config.model.teachers.big.checkpoint = str(path)
    with pytest.raises(ValueError, match="teacher 'big' knows none of the"):
        train(config)


def test_non_finite_updates_are_skipped_then_stop(
    scenes, teacher, tmp_path, monkeypatch
):
    config = training_config(scenes, tmp_path / 'nan', teacher, epochs=2)
    runner = Runner.from_cfg(config)
    model = runner.model
    stock = model.bbox_head.loss

    def poisoned(*args):
        losses = stock(*args)
        return {k: [x * float('nan') for x in v] for k, v in losses.items()}

    monkeypatch.setattr(model.bbox_head, 'loss', poisoned)
    before = {}
    hook = next(h for h in runner.hooks if type(h).__name__ == 'GoRWeightHook')
    stock_before = hook.before_train_iter

    def remember(*args, **kwargs):
        stock_before(*args, **kwargs)
        if not before:
            before.update(
                (k, v.clone()) for k, v in model.state_dict().items()
            )

    monkeypatch.setattr(hook, 'before_train_iter', remember)
    with pytest.raises(RuntimeError, match='not finite in 2 steps in a row'):
        runner.train()
    for key, value in model.state_dict().items():
        # The balanced start moves the thetas, not the optimizer.
        if 'theta' not in key:
            assert torch.equal(value, before[key]), key


def test_calibration_hook_without_quantized_layers(scenes, teacher, tmp_path):
    config = training_config(scenes, tmp_path / 'floaty', teacher)
    stock = retinanet_cfg(classes=5)
    for part in ('backbone', 'neck', 'bbox_head'):
        config.model[part] = stock[part]
    with pytest.raises(RuntimeError, match='found no quantized layer'):
        train(config)

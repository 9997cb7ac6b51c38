"""From the config of a float detector to that of a student."""

from functools import partial

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MessageHub
from torch import nn

from mmgor.conversion.convert import convert
from mmgor.conversion.new_style import copy_path
from mmgor.conversion.request import Request
from mmgor.conversion.trial import float_model
from mmgor.conversion.wrapping import file_settings
from mmgor.quantization import quantized_layers
from mmgor.registry import MODELS
from tests.support.conversion import (
    RETINANET,
    refuse,
    run,
    whole,
    write_float,
    write_weights,
)
from tests.support.students import tiny

YOLOX = 'yolox/yolox_nano_8xb8-300e_coco'
YOLOV3 = 'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco'
DETR = 'deformable_detr/deformable-detr_r50_16xb2-50e_coco'


@MODELS.register_module()
class ResNetWithIdleLayer(ResNet):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.idle = nn.Conv2d(3, 3, 1)


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'student.py'


def test_a_student_is_the_float_detector_with_quantized_layers(tmp_path, out):
    config = write_float(tmp_path)
    weights = write_weights(config)
    cfg, said = run(config, out, checkpoint=str(weights), w_bits=3, a_bits=5)
    assert 'loaded     100.0%' in said
    assert cfg.load_from == str(weights)
    assert cfg.model.type == 'RetinaNet'
    model = MODELS.build(cfg.model)
    bits = {
        name: (x.weight_quantizer.bits, x.input_quantizer.bits)
        for name, x in quantized_layers(model).items()
    }
    edges = {'backbone.conv1', 'bbox_head.retina_cls', 'bbox_head.retina_reg'}
    assert {n for n, b in bits.items() if b == (8, 8)} == edges
    assert {b for n, b in bits.items() if n not in edges} == {(3, 5)}
    plain = MODELS.build(Config.fromfile(config).model).state_dict()
    mine = {k for k in model.state_dict() if '_quantizer.' not in k}
    assert mine == set(plain)


def test_what_the_base_config_has_is_kept(tmp_path, out):
    imports = dict(imports=['json'], allow_failed_imports=False)
    cfg, _ = run(write_float(tmp_path, custom_imports=imports), out)
    assert cfg.custom_imports == dict(imports, imports=['json', 'mmgor'])
    assert [hook.type for hook in cfg.custom_hooks] == [
        'SyncNormHook',
        'QuantCalibrationHook',
        'NonFiniteLossHook',
        'ReportHook',
    ]
    assert cfg.optim_wrapper.optimizer == dict(
        type='AdamW', lr=1e-4, weight_decay=0.05
    )
    assert cfg.train_cfg.max_epochs == 12


def test_the_float_detector_keeps_its_folder(tmp_path, out):
    floats = dict(work_dir='work_dirs/float', resume=True)
    cfg, _ = run(write_float(tmp_path, **floats), out)
    assert cfg.work_dir == 'work_dirs/student'
    assert cfg.resume is False


def test_a_target_sets_what_it_needs(tmp_path, out):
    cfg, _ = run(write_float(tmp_path, YOLOX), out, target='tensorrt')
    assert cfg.quant == dict(w_bits=4, a_bits=4, target='tensorrt')


def test_swish_gets_inputs_with_an_offset(tmp_path, out):
    cfg, said = run(write_float(tmp_path, YOLOX), out)
    assert cfg.quant.input_quantizer == dict(type='LSQPlusQuantizer')
    assert 'per_channel_depthwise' in said


def test_batches_of_several_sizes(tmp_path, out):
    MessageHub.get_instance('nothing was trained')  # the current one
    config = write_float(tmp_path, YOLOX)
    base = Config.fromfile(config)
    stock = get_config('mmdet::yolox/yolox_nano_8xb8-300e_coco.py')
    augments = stock.model.data_preprocessor.batch_augments
    assert augments[0].type == 'BatchSyncRandomResize'
    base.model.data_preprocessor.batch_augments = augments
    base.dump(config)
    cfg, _ = run(config, out)
    assert cfg.model.data_preprocessor.batch_augments == augments


def test_batch_norm_that_needs_several_processes(tmp_path, out):
    config = write_float(tmp_path)
    base = Config.fromfile(config)
    base.model.backbone.norm_cfg = dict(type='MMSyncBN', requires_grad=True)
    base.dump(config)
    _, said = run(config, out)
    assert 'start with torchrun' in said


def test_layers_that_never_run_stay_in_float(tmp_path, out):
    config = write_float(tmp_path)
    base = Config.fromfile(config)
    base.model.backbone.type = 'ResNetWithIdleLayer'
    base.dump(config)
    cfg, said = run(config, out)
    assert cfg.model.backbone.quant.overrides == {'idle': None}
    assert 'overrides' not in cfg.model.neck.quant
    assert 'overrides (backbone.idle)' in said
    assert 'never called: backbone.idle. ' in said


def test_layers_that_nothing_depends_on_are_named(tmp_path, out):
    said = []
    config = str(write_float(tmp_path, YOLOV3))
    trial = convert(Request(config, out), said.append)
    layer = 'backbone.conv2.conv'  # MobileNetV2 has it, YOLOv3 has no use
    assert {name.rsplit('.', 2)[0] for name in trial.still} == {layer}
    assert layer in said[-1]


def test_a_transformer_is_wrapped_by_its_detector(tmp_path, out):
    cfg, said = run(write_float(tmp_path, DETR), out)
    assert cfg.model.type == 'QuantDeformableDETR'
    assert cfg.model.quant == cfg.quant
    assert 'nn.MultiheadAttention' in said


def test_lists_of_heads_are_whole(tmp_path, out):
    model = tiny('faster_rcnn/faster-rcnn_r50_fpn_1x_coco')
    head = dict(model.roi_head.bbox_head, num_classes=3)
    stage = model.train_cfg.rcnn
    model.train_cfg.rcnn = [stage, stage]
    model.roi_head.update(
        type='CascadeRoIHead',
        num_stages=2,
        stage_loss_weights=[1, 0.5],
        bbox_head=[head, dict(head, reg_class_agnostic=True)],
    )
    config = tmp_path / 'cascade.py'
    whole(model).dump(config)
    cfg, _ = run(config, out)
    first, second = cfg.model.roi_head.bbox_head
    assert first.type == second.type == 'QuantHead'
    assert first.head == second.head == 'Shared2FCBBoxHead'
    assert second.reg_class_agnostic
    weights = write_weights(config)
    start = dict(type='Pretrained', checkpoint='head.pth')
    model.roi_head.bbox_head[0].init_cfg = start
    whole(model).dump(config)
    cfg, _ = run(config, out, checkpoint=str(weights))
    assert [one.init_cfg for one in cfg.model.roi_head.bbox_head] == [None] * 2


NEW_STYLE = """
from mmdet.models import {names}

model = {model}
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.01))
"""


def test_a_new_style_config_gets_a_text_copy(tmp_path, out):
    model = repr(tiny(RETINANET).to_dict())
    names = ('RetinaNet', 'ResNet', 'RetinaHead')
    for name in names:
        model = model.replace(f"'type': '{name}'", f"'type': {name}")
    config = tmp_path / 'new.py'
    config.write_text(NEW_STYLE.format(names=', '.join(names), model=model))
    cfg, _ = run(config, out)
    assert copy_path(out).is_file()
    assert cfg.model.backbone.backbone.endswith('ResNet')
    assert quantized_layers(MODELS.build(cfg.model))


def test_what_the_student_needs_is_not_overwritten(tmp_path, out):
    base = write_float(tmp_path)
    config = tmp_path / 'mine.py'
    config.write_text(f'_base_ = {base.name!r}\n')
    other = write_float(tmp_path, YOLOX)
    teachers = [f'{other}:{write_weights(other)}']
    for needed in (config, base, other):
        text = needed.read_text()
        with pytest.raises(ValueError, match='would overwrite a config'):
            request = Request(str(config), needed, teachers=teachers)
            convert(request, lambda _: None)
        assert needed.read_text() == text


def test_a_new_style_config_is_not_overwritten_by_its_copy(tmp_path, out):
    config = copy_path(out)
    config.write_text(
        'from mmdet.models import RetinaNet\nmodel = dict(type=RetinaNet)\n'
    )
    refuse(ValueError, 'would overwrite a config', config, out)


def test_only_python_files_are_written(tmp_path, out):
    config = write_float(tmp_path)
    for wrong in (out.with_suffix(''), out.with_suffix('.txt')):
        refuse(
            ValueError, r'expected a file such as student\.py', config, wrong
        )


def test_a_student_is_refused(tmp_path, out):
    config = write_float(tmp_path)
    base = Config.fromfile(config)
    kind = base.model.neck.type
    quant = dict(w_bits=4, a_bits=4)
    base.model.neck.update(type='QuantNeck', neck=kind, quant=quant)
    base.dump(config)
    refuse(ValueError, r'quantized layers \(neck\.lateral', config, out)


def test_a_new_training_starts_from_the_checkpoint_alone(tmp_path, out):
    config = write_float(tmp_path, resume=True)
    base = Config.fromfile(config)
    weights = write_weights(config)
    base.model.backbone.pretrained = 'torchvision://resnet18'
    base.model.backbone.pop('init_cfg')
    base.dump(config)
    cfg, _ = run(config, out, checkpoint=str(weights))
    assert cfg.resume is False
    assert cfg.model.backbone.pretrained is None


def test_files_of_modules_inside_of_parts():
    file = dict(type='Pretrained', checkpoint='torchvision://resnet18')
    inner = dict(type='ResNet', init_cfg=file)
    model = dict(
        backbone=dict(type='ResNet', init_cfg=[dict(type='Kaiming'), file]),
        neck=dict(type='RFP', rfp_backbone=dict(inner, pretrained='a.pth')),
        bbox_head=dict(type='RetinaHead', init_cfg=dict(type='Normal')),
        teacher_backbone=inner,
        mask_head=dict(type='A', backbone=dict(pretrained=True)),
    )
    assert [*file_settings(model)] == [
        (('backbone', 'init_cfg'), None),
        (('neck', 'rfp_backbone', 'init_cfg'), None),
        (('neck', 'rfp_backbone', 'pretrained'), None),
        (('mask_head', 'backbone', 'pretrained'), False),
    ]


def test_a_trial_downloads_no_teacher():
    url = 'https://example.com/teacher.pth'
    model = dict(type='LAD', backbone=dict(type='ResNet'), teacher_ckpt=url)
    found = float_model(dict(model=model))
    assert found == dict(type='LAD', backbone=dict(type='ResNet'))


def test_grey_images(tmp_path, out):
    config = write_float(tmp_path)
    base = Config.fromfile(config)
    base.model.backbone.in_channels = 1
    base.model.data_preprocessor.update(
        mean=[0.0], std=[1.0], bgr_to_rgb=False
    )
    base.dump(config)
    cfg, _ = run(config, out)
    assert cfg.model.backbone.type == 'QuantBackbone'


def test_a_checkpoint_of_another_model_is_refused(tmp_path, out):
    other = write_float(tmp_path, YOLOX)
    weights = str(write_weights(other))
    refuse(
        ValueError,
        'a checkpoint of another model',
        write_float(tmp_path),
        out,
        checkpoint=weights,
    )


def test_what_cannot_work_is_refused_and_nothing_is_written(tmp_path, out):
    config = write_float(tmp_path)
    no = partial(refuse, ValueError, config=config, out=out)
    no('w_bits must be an integer from 2 to 8', w_bits=1)
    no("target.*'litert'", target='litrt')
    no('--teacher expected CONFIG.py:CHECKPOINT', teachers=['r101'])
    lost = dict(checkpoint=str(tmp_path / 'lost.pth'))
    refuse(FileNotFoundError, r'lost\.pth', config, out, **lost)
    refuse(FileNotFoundError, 'no.py', tmp_path / 'no.py', out)


def test_a_config_without_an_optimizer_is_refused(tmp_path, out):
    config = tmp_path / 'model.py'
    Config(dict(model=tiny(RETINANET))).dump(config)
    refuse(ValueError, 'optim_wrapper', config, out)


def test_a_step_that_fails_writes_nothing(tmp_path, out, monkeypatch):
    def fail(model, batch):
        raise RuntimeError('a step that fails')

    monkeypatch.setattr('mmgor.conversion.convert.try_step', fail)
    refuse(RuntimeError, 'a step that fails', write_float(tmp_path), out)


def test_adam_stays_and_gets_a_smaller_rate(tmp_path, out):
    config = write_float(tmp_path)
    base = Config.fromfile(config)
    base.optim_wrapper.optimizer = dict(type='AdamW', lr=4e-3, eps=1e-7)
    base.dump(config)
    cfg, _ = run(config, out)
    assert cfg.optim_wrapper.optimizer == dict(type='AdamW', lr=1e-4, eps=1e-7)


def test_random_states_do_not_matter(tmp_path, out):
    torch.manual_seed(7)
    run(write_float(tmp_path), out)
    first = out.read_text()
    torch.manual_seed(8)
    run(write_float(tmp_path), out)
    assert out.read_text() == first


def test_batches_are_made_as_the_config_says(tmp_path, out):
    config = write_float(tmp_path)
    base = Config.fromfile(config)
    base.train_dataloader.collate_fn = dict(type='pseudo_collate')
    base.dump(config)
    run(config, out)
    base.train_dataloader.collate_fn = dict(type='nobody_collates')
    base.dump(config)
    out.unlink()
    refuse(ValueError, "'nobody_collates', which is not", config, out)

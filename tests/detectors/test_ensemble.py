"""Teachers of other detector classes than the student, alone and together."""

import copy

import pytest
import torch
from mmengine.hub import get_config

from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.models import make_batch, retinanet_cfg, student_cfg

SIDE = 128
R18 = dict(
    depth=18,
    base_channels=8,
    stem_channels=8,
    init_cfg=None,
    norm_cfg=dict(type='BN'),
    style='pytorch',
    frozen_stages=-1,
)
TEACHERS = {
    'yolox/yolox_nano_8xb8-300e_coco': dict(
        backbone=dict(widen_factor=0.125),
        neck=dict(in_channels=[32, 64, 128], out_channels=16),
        bbox_head=dict(in_channels=16, feat_channels=16),
    ),
    'gfl/gfl_r50_fpn_1x_coco': dict(
        backbone=R18,
        neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
        bbox_head=dict(
            in_channels=16,
            feat_channels=16,
            stacked_convs=1,
            norm_cfg=dict(type='GN', num_groups=4),
        ),
    ),
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco': dict(
        backbone=R18,
        neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
        rpn_head=dict(in_channels=16, feat_channels=16),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=16),
            bbox_head=dict(in_channels=16, fc_out_channels=16),
        ),
        test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20)),
    ),
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco': dict(
        backbone=R18,
        neck=dict(
            in_channels=[16, 32, 64],
            out_channels=32,
            norm_cfg=dict(type='GN', num_groups=4),
        ),
        encoder=dict(
            num_layers=1,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=32, num_heads=4),
                ffn_cfg=dict(embed_dims=32, feedforward_channels=32),
            ),
        ),
        decoder=dict(
            num_layers=1,
            layer_cfg=dict(
                self_attn_cfg=dict(embed_dims=32, num_heads=4),
                cross_attn_cfg=dict(embed_dims=32, num_heads=4),
                ffn_cfg=dict(embed_dims=32, feedforward_channels=32),
            ),
        ),
        positional_encoding=dict(num_feats=16),
        bbox_head=dict(embed_dims=32),
        num_queries=10,
        test_cfg=dict(max_per_img=10),
    ),
}
NAMES = ['a', 'b', 'c']


@pytest.fixture(scope='module')
def specs(tmp_path_factory):
    """Config and checkpoint of a tiny teacher of each kind."""
    folder = tmp_path_factory.mktemp('teachers')
    specs = {}
    for i, (name, tiny) in enumerate(TEACHERS.items()):
        cfg = get_config(f'mmdet::{name}.py')
        cfg.merge_from_dict(dict(model=copy.deepcopy(tiny)))
        torch.manual_seed(i)
        path = folder / f'{i}.pth'
        model = MODELS.build(copy.deepcopy(cfg.model))  # DETRs write into it
        model.init_weights()
        torch.save(model.state_dict(), path)
        specs[name.split('/')[0]] = dict(
            config=dict(model=cfg.model),
            checkpoint=str(path),
            classes=[*NAMES, *(f'other{i}' for i in range(77))],
        )
    return specs


def student(teachers, **heads):
    torch.manual_seed(0)
    cfg = student_cfg({}, teachers=teachers, kd_heads=heads)
    model = MODELS.build(cfg)
    model.build_teachers()
    model.map_classes(NAMES)
    batch = make_batch(side=SIDE)
    calibrate(model, [batch], lambda b: model(**b, mode='tensor'))
    return model.train(), make_batch(side=SIDE)


def step(model, batch):
    outputs = model(**batch, mode='loss')
    loss, _ = model.parse_losses(outputs)
    loss.backward()
    idle = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    assert idle == [] and torch.isfinite(loss)
    return outputs


def test_a_yolox_teaches_a_retinanet(specs):
    model, batch = student(
        dict(yolox=specs['yolox']),
        cls=dict(type='ScoreKDHead'),
        box=dict(type='BoxKDHead'),
        found=dict(type='DetectionKDHead', min_score=0.0),
        neck=dict(
            type='FeatureKDHead', student_channels=16, strides=[8, 16, 32]
        ),
    )
    outputs = step(model, batch)
    for name in ('cls', 'box', 'found', 'neck'):
        assert outputs[f'loss_kd_{name}'] > 0


@pytest.mark.parametrize('kind', ['faster_rcnn', 'deformable_detr'])
def test_detectors_without_a_dense_head_teach_by_detections(specs, kind):
    model, batch = student(
        {kind: specs[kind]}, found=dict(type='DetectionKDHead', min_score=0.0)
    )
    assert step(model, batch)['loss_kd_found'] > 0


def test_heads_that_are_not_dense_are_refused(specs):
    with pytest.raises(ValueError, match=r'cannot read .* DeformableDETRHead'):
        student(
            dict(detr=specs['deformable_detr']), cls=dict(type='ScoreKDHead')
        )
    with pytest.raises(ValueError, match="unknown tap 'bbox_head' in the tea"):
        student(dict(rcnn=specs['faster_rcnn']), cls=dict(type='ScoreKDHead'))


def test_a_tap_in_the_head_of_a_detr_is_refused(specs):
    model, batch = student(
        dict(detr=specs['deformable_detr']),
        head=dict(
            type='FeatureKDHead', student_channels=16, teacher_tap='bbox_head'
        ),
    )
    message = r"bbox_head of teacher 'detr' \(DeformableDETR\) runs on the qu"
    with pytest.raises(ValueError, match=message):
        model(**batch, mode='loss')


@pytest.mark.parametrize('fusion', ['mean', 'confidence', 'learned'])
def test_different_teachers_fuse_scores(specs, fusion):
    names = ['yolox', 'gfl']
    model, batch = student(
        {name: specs[name] for name in names},
        cls=dict(type='ScoreKDHead', teacher=names, fusion=fusion),
        yolox_neck=dict(
            type='FeatureKDHead',
            teacher='yolox',
            student_channels=16,
            strides=[8, 16, 32],
        ),
    )
    outputs = step(model, batch)
    # The mean over a teacher's heads: its share of the fused scores, and 1
    # for a head that learns from it alone.
    share = model.kd_heads['cls'].shares
    torch.testing.assert_close(
        share['yolox'] + share['gfl'], torch.tensor(1.0)
    )
    torch.testing.assert_close(
        outputs['gor_w_kd_gfl'], outputs['gor_w_kd'] * share['gfl']
    )
    torch.testing.assert_close(
        outputs['gor_w_kd_yolox'],
        outputs['gor_w_kd'] * (share['yolox'] + 1) / 2,
    )
    assert outputs['gor_raw_kd_gfl'] > 0
    assert not any('loss' in key for key in outputs if '_kd_' in key
                   and key.startswith('gor'))  # fmt: skip


def test_different_teachers_fuse_detections(specs):
    names = ['yolox', 'faster_rcnn']
    model, batch = student(
        {name: specs[name] for name in names},
        found=dict(type='DetectionKDHead', teacher=names, min_score=0.0),
    )
    outputs = step(model, batch)
    assert outputs['loss_kd_found'] > 0
    assert outputs['gor_w_kd_yolox'] == outputs['gor_w_kd'] / 2
    assert 'gor_raw_kd_yolox' not in outputs  # fused boxes give a single loss


def test_an_offloaded_bfloat16_teacher(specs):
    spec = dict(specs['faster_rcnn'], dtype='bfloat16', offload=True)
    model, batch = student(
        dict(rcnn=spec), found=dict(type='DetectionKDHead', min_score=0.0)
    )
    assert step(model, batch)['loss_kd_found'] > 0


def test_a_teacher_without_names_beside_one_with_names(specs):
    unnamed = {k: specs['gfl'][k] for k in ('config', 'checkpoint')}
    with pytest.raises(ValueError, match="of teacher 'gfl' or of the train"):
        student(
            dict(gfl=unnamed, yolox=specs['yolox']),
            cls=dict(type='ScoreKDHead', teacher=['gfl', 'yolox']),
        )


def test_features_need_no_classes(specs):
    teacher = dict(specs['gfl'], classes=[f'other{i}' for i in range(80)])
    model, batch = student(
        dict(gfl=teacher), neck=dict(type='FeatureKDHead', student_channels=16)
    )
    assert step(model, batch)['loss_kd_neck'] > 0


def test_names_and_outputs_must_agree_in_number(specs):
    teacher = dict(specs['gfl'], classes=NAMES)
    with pytest.raises(ValueError, match='has 80 classes in its head and 3 c'):
        student(dict(gfl=teacher), cls=dict(type='ScoreKDHead'))


def test_one_teacher_has_no_values_of_its_own_in_the_log(specs):
    model, batch = student(
        dict(gfl=specs['gfl']), cls=dict(type='ScoreKDHead')
    )
    assert 'gor_w_kd_gfl' not in step(model, batch)


def test_the_heads_of_a_teacher_run_before_the_next_teacher(specs):
    model, batch = student(
        dict(yolox=specs['yolox'], gfl=specs['gfl']),
        first=dict(type='ScoreKDHead', teacher='yolox'),
        second=dict(type='ScoreKDHead', teacher='gfl'),
    )
    events = []
    for name, head in model.kd_heads.items():
        head.register_forward_hook(lambda *_, n=name: events.append(n))
    for name, teacher in model.teachers.items():
        teacher.model.backbone.register_forward_hook(
            lambda *_, n=name: events.append(n)
        )
    model(**batch, mode='loss')
    assert events == ['yolox', 'first', 'gfl', 'second']


def test_a_teacher_without_a_common_class(specs):
    teacher = dict(specs['gfl'], classes=[f'other{i}' for i in range(80)])
    with pytest.raises(ValueError, match="teacher 'gfl' knows none"):
        student(dict(gfl=teacher), cls=dict(type='ScoreKDHead'))


def test_unknown_class_names_are_matched_by_number(specs):
    cfg = retinanet_cfg(classes=80)
    teacher = {k: specs['gfl'][k] for k in ('config', 'checkpoint')}
    model = MODELS.build(
        dict(
            cfg,
            type='GoRDetector',
            detector='RetinaNet',
            teachers=dict(gfl=teacher),
            kd_heads=dict(cls=dict(type='ScoreKDHead')),
            gor_weighting=dict(type='GoRWeighting'),
        )
    )
    model.build_teachers()
    model.map_classes(None)
    outputs = model(**make_batch(side=SIDE), mode='loss')
    assert torch.isfinite(outputs['loss_kd_cls'])

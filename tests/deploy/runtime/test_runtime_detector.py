"""``RuntimeDetector``: an exported file as a detector of mmdet."""

import copy
import json
import pickle

import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmengine import registry
from mmengine.config import Config, ConfigDict
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.head_outputs import map_nested
from mmgor.deploy.runtime.runtime_config import runtime_model
from mmgor.registry import MODELS
from tests.support.models import make_batch, retinanet_cfg
from tests.support.tools import run_tool


class Network:
    """A runtime that runs the student itself and records its inputs.

    It runs one image at a time: a larger batch adds in another order, which
    flips quantization steps.
    """

    def __init__(self, model, metadata, batch=1):
        self.model = model
        self.path = 'student.onnx'
        self.metadata = copy.deepcopy(metadata)
        self.metadata['input']['batch'] = batch
        self.seen = []

    def __call__(self, images):
        self.seen.append(images)
        with torch.no_grad():
            if self.metadata['nms']:
                return self.found
            runs = [self.model(image) for image in images.split(1)]
        return map_nested(lambda *tensors: torch.cat(tensors), *runs)


@pytest.fixture
def detector(exported):
    """The detector of the exported file, with PyTorch's outputs."""
    cfg = exported.cfg()
    cfg.model.data_preprocessor.pad_value = 3
    model = MODELS.build(runtime_cfg(exported, cfg)).eval()
    model.runtime = Network(exported.model(), model.runtime.metadata)
    return model


def runtime_cfg(exported, cfg):
    """A config whose preprocessing differs from the file's."""
    model = runtime_model(exported.cfg(), exported.onnx)
    model.data_preprocessor = cfg.model.data_preprocessor
    return model


def test_pads_as_the_preprocessor_does(detector):
    detector.runtime.metadata['input'].update(height=96, width=160)
    images = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)]
    got = detector.data_preprocessor(
        dict(inputs=images, data_samples=None), False
    )['inputs']
    assert got.shape[2:] == (64, 96)
    config = dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_value=3,
    )
    further = DetDataPreprocessor(pad_size_divisor=160, **config)
    wanted = further(dict(inputs=images, data_samples=None))['inputs']
    torch.testing.assert_close(detector.fit(got), wanted[:, :, :96])
    assert (detector.fit(got)[:, :, 64:] == 3).all()


def test_pads_to_the_divisor_of_a_dynamic_file(detector):
    detector.runtime.metadata['input'].update(height=None, width=None)
    assert detector.fit(torch.zeros(2, 3, 33, 64)).shape == (2, 3, 64, 64)


def test_boxes_where_the_file_is_larger_than_the_batch(detector, monkeypatch):
    """CenterNet's head scales boxes by the size of the whole image."""
    detector.runtime.metadata['input'].update(height=96, width=160)
    detector.bbox_head = MODELS.build(
        dict(
            type='CenterNetHead',
            in_channels=4,
            feat_channels=4,
            num_classes=5,
            test_cfg=ConfigDict(topk=1, local_maximum_kernel=3),
        )
    )
    peaks, sizes = torch.zeros(1, 5, 24, 40), torch.full((1, 2, 24, 40), 2.0)
    peaks[0, 2, 3, 5] = 1  # a cell is 4 x 4 pixels
    outputs = [[peaks], [sizes], [torch.zeros_like(sizes)]]
    monkeypatch.setattr(detector, 'outputs', lambda _: outputs)
    meta = dict(img_shape=(64, 64), batch_input_shape=(64, 64))
    meta.update(border=(0, 0, 0, 0), scale_factor=(1.0, 1.0))
    sample = DetDataSample(metainfo=meta)
    detector.predict(torch.zeros(1, 3, 64, 64), [sample])
    assert sample.pred_instances.bboxes.tolist() == [[16, 8, 24, 16]]
    assert sample.pred_instances.labels.tolist() == [2]


def test_detections_of_a_graph_with_nms(detector):
    """The graph knows only the padded image."""
    detector.runtime.metadata['nms'] = True
    boxes = torch.tensor([[10.0, 20.0, 30.0, 40.0], [40.0, 30.0, 96.0, 64.0]])
    found = boxes, torch.tensor([0.9, 0.4]), torch.tensor([3, 0])
    detector.runtime.found = list(found)
    samples = make_batch(side=64)['data_samples']
    for sample in samples:
        sample.set_metainfo(dict(img_shape=(60, 90), scale_factor=(0.5, 0.25)))
    got = detector.predict(torch.zeros(2, 3, 64, 96), samples)
    assert [len(images) for images in detector.runtime.seen] == [1, 1]
    # The second box is clipped to 90 x 60. Then x is doubled, y quadrupled.
    wanted = [[20.0, 80.0, 60.0, 160.0], [80.0, 120.0, 180.0, 240.0]]
    for sample in got:
        instances = sample.pred_instances
        assert instances.bboxes.tolist() == wanted
        assert instances.scores is found[1] and instances.labels is found[2]
    clipped = detector.predict(torch.zeros(1, 3, 64, 96), samples[:1], False)
    assert clipped[0].pred_instances.bboxes.tolist() == [
        [10.0, 20.0, 30.0, 40.0],
        [40.0, 30.0, 90.0, 60.0],
    ]
    with pytest.raises(RuntimeError, match='gives detections, not the outp'):
        detector.outputs(torch.zeros(1, 3, 64, 96))


@pytest.mark.parametrize('batch', [1, 2, None])
def test_predicts_the_same_as_the_student(batch, detector, exported):
    student = exported.model()
    detector.runtime.metadata['input']['batch'] = batch
    data = make_batch(size=3, side=64)
    samples = [copy.deepcopy(data['data_samples']) for _ in range(2)]
    for ours, theirs in zip(*samples):
        # Boxes are scaled back to pixels of the original images.
        for sample in (ours, theirs):
            sample.set_metainfo(
                dict(scale_factor=(0.5, 0.25), ori_shape=(256, 128))
            )
    with torch.no_grad():
        got = detector.predict(data['inputs'], samples[0])
        inputs = detector.fit(data['inputs']).split(1)
        wanted = [
            student.predict(image, [sample])[0]
            for image, sample in zip(inputs, samples[1])
        ]
    for ours, theirs in zip(got, wanted, strict=True):
        assert len(ours.pred_instances) == 10
        assert ours.metainfo == theirs.metainfo
        for key in ('bboxes', 'scores', 'labels'):
            torch.testing.assert_close(
                ours.pred_instances[key], theirs.pred_instances[key]
            )
    shapes = [len(images) for images in detector.runtime.seen]
    assert shapes == {1: [1, 1, 1], 2: [2, 2], None: [3]}[batch]


def test_larger_images_are_refused(detector):
    with pytest.raises(ValueError, match=r'takes images of 64 x 96 .*96 x 96'):
        detector.fit(torch.zeros(1, 3, 96, 96))


def test_a_file_is_not_trained(detector, batch):
    with pytest.raises(RuntimeError, match='can not be trained'):
        detector.loss(batch['inputs'], batch['data_samples'])
    with pytest.raises(RuntimeError, match='gives only what detections'):
        detector.extract_feat(batch['inputs'])


def test_hooks_may_copy_it(exported):
    model = MODELS.build(runtime_model(exported.cfg(), exported.onnx))
    assert ExponentialMovingAverage(model).module.runtime is model.runtime


def stock(classes=5):
    return Config(dict(model=retinanet_cfg(classes=classes)))


def test_a_float_config_with_the_same_head(exported):
    model = runtime_model(stock(), exported.onnx)
    assert model == runtime_model(exported.cfg(), exported.onnx)
    assert model.bbox_head.type == 'RetinaHead'
    assert model.test_cfg.nms_pre == 100


def test_a_config_without_a_scope(exported):
    """As new-style configs are; the file has the names of their classes."""
    cfg = exported.cfg()
    cfg.default_scope = None
    with DefaultScope.overwrite_default_scope('mmengine'):
        model = registry.MODELS.build(runtime_model(cfg, exported.onnx))
    assert type(model.data_preprocessor) is DetDataPreprocessor


def test_preprocessor_beside_the_model(exported):
    cfg = stock()
    cfg.data_preprocessor = cfg.model.pop('data_preprocessor')
    wanted = runtime_model(stock(), exported.onnx)
    assert runtime_model(cfg, exported.onnx) == wanted


def test_another_test_cfg_than_that_of_a_graph_with_nms(exported, monkeypatch):
    """It would have no effect, so it is refused."""
    cfg = stock()
    cfg.model.test_cfg.score_thr = 0.5
    runtime_model(cfg, exported.onnx)
    metadata = dict(read_metadata(exported.onnx), nms=True)
    monkeypatch.setattr(
        'mmgor.deploy.runtime.runtime_config.read_metadata', lambda _: metadata
    )
    runtime_model(stock(), exported.onnx)
    with pytest.raises(
        ValueError, match=r'test_cfg\.score_thr is 0\.5 in .*0'
    ):
        runtime_model(cfg, exported.onnx)


def wrong_head(cfg):
    cfg.model.bbox_head.type = 'ATSSHead'


def wrong_mean(cfg):
    cfg.model.data_preprocessor.mean = [0.0, 0.0, 0.0]


def wrong_order(cfg):
    names = ['triangle', 'disc', 'square', 'ring', 'cross']
    dataset = dict(type='CocoDataset', metainfo=dict(classes=names))
    cfg.test_dataloader = dict(dataset=dataset)


def two_stages(cfg):
    cfg.model = dict(type='FasterRCNN', rpn_head=dict(), roi_head=dict())


@pytest.mark.parametrize(
    'change, message',
    [
        (wrong_head, "type is 'ATSSHead' in the config and 'RetinaHead' in"),
        (wrong_mean, r'data_preprocessor\.mean is \[0\.0, 0\.0, 0\.0\] in'),
        (wrong_order, "classes is .*'triangle', 'disc'.* in the config and"),
        (two_stages, 'single-stage model with a bbox_head .*FasterRCNN'),
    ],
)
def test_configs_of_other_files(change, message, exported):
    cfg = stock()
    change(cfg)
    with pytest.raises(ValueError, match=message):
        runtime_model(cfg, exported.onnx)


def test_other_number_of_classes(exported):
    with pytest.raises(ValueError, match=r'num_classes is 3 .* and 5 in the'):
        runtime_model(stock(classes=3), exported.onnx)


def run_test_tool(monkeypatch, tmp_path, *argv):
    """Metrics and predictions of tools/test.py."""
    out = tmp_path / 'boxes.pkl'
    argv = [*argv, '--work-dir', tmp_path, '--out', out]
    run_tool(monkeypatch, 'test', *argv)
    (scores,) = tmp_path.glob('2*/*.json')
    return json.loads(scores.read_text()), pickle.loads(out.read_bytes())


def fewer_pixels(exported):
    """Options for images of 32 x 32, which have to be padded."""
    scale = 'test_dataloader.dataset.pipeline.2.scale=(32,32)'
    return [exported.config, exported.onnx, '--cfg-options', scale]


def test_tool_evaluates_a_file(exported, monkeypatch, tmp_path):
    # A float config would have these; the file needs no weights.
    argv = [*fewer_pixels(exported), 'load_from=none.pth', 'resume=True']
    metrics, boxes = run_test_tool(monkeypatch, tmp_path, *argv)
    assert 0 <= metrics['coco/bbox_mAP'] <= 1
    cfg = exported.cfg()
    cfg.test_dataloader.dataset.pipeline[2].scale = (32, 32)
    model = MODELS.build(runtime_model(cfg, exported.onnx)).eval()
    wanted = []
    for batch in Runner.build_dataloader(cfg.test_dataloader):
        assert batch['inputs'][0].shape == (3, 32, 32)
        wanted += model.test_step(batch)
    assert len(boxes) == len(wanted) == 4
    for got, want in zip(boxes, wanted):
        torch.testing.assert_close(
            got['pred_instances']['bboxes'], want.pred_instances.bboxes
        )


@pytest.mark.filterwarnings('ignore:no tta_model in the config')
def test_tool_augments_a_file(exported, monkeypatch, tmp_path):
    argv = [*fewer_pixels(exported), '--tta']
    metrics, boxes = run_test_tool(monkeypatch, tmp_path, *argv)
    assert 0 <= metrics['coco/bbox_mAP'] <= 1
    assert [len(b['pred_instances']['scores']) > 10 for b in boxes] == [1] * 4


def test_tool_refuses_augmentation_beyond_the_file(
    exported, monkeypatch, tmp_path
):
    cfg = exported.cfg()
    pack = copy.deepcopy(cfg.test_dataloader.dataset.pipeline[-1])
    cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(max_per_img=10))
    scales = [dict(type='Resize', scale=(s, s)) for s in (64, 128)]
    cfg.tta_pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='TestTimeAug', transforms=[scales, [pack]]),
    ]
    cfg.dump(tmp_path / 'tta.py')
    argv = [tmp_path / 'tta.py', exported.onnx, '--tta']
    with pytest.raises(
        ValueError, match=r'takes images of 64 x 96 .*128 x 12'
    ):
        run_test_tool(monkeypatch, tmp_path, *argv)

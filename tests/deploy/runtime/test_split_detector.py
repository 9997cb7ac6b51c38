"""``SplitDetector``: a file that has a part of a detector."""

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage

from mmgor.datasets.shapes import CLASSES
from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.loading import load_detector
from mmgor.deploy.parts import parts_of
from mmgor.deploy.runtime.detector import Detector
from mmgor.deploy.runtime.runtime_config import runtime_model
from mmgor.deploy.verify.verify_export import verify_export
from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.models import make_batch
from tests.support.students import quantized, student_of_itself, tiny
from tests.support.tools import run_tool
from tests.support.training import tiny_scenes, training_config

FASTER = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco'
DETR = 'deformable_detr/deformable-detr_r50_16xb2-50e_coco'


@dataclass
class Split:
    """A detector and the file that has a part of it.

    Attributes:
        config (Path): Its config.
        checkpoint (Path): Its weights.
        onnx (Path): Backbone, neck and RPN, for one image of 64 x 96.
    """

    config: Path
    checkpoint: Path
    onnx: Path

    def cfg(self):
        return Config.fromfile(self.config)

    def build(self, **changes):
        model = runtime_model(self.cfg(), self.onnx, self.checkpoint)
        return MODELS.build({**model, **changes}).eval()


@pytest.fixture(scope='module', params=[FASTER, DETR])
def split(request, tmp_path_factory):
    pytest.importorskip('onnxscript')
    from mmgor.deploy.export.exporter import export_detector

    folder = tmp_path_factory.mktemp('split')
    scenes = tiny_scenes(tmp_path_factory.mktemp('scenes'))
    cfg = training_config(scenes, folder / 'work', {})
    count = len(CLASSES)
    if request.param == FASTER:
        cfg.model = student_of_itself(FASTER, folder)  # with a teacher
        cfg.model.roi_head.bbox_head.num_classes = count
    else:
        cfg.model = quantized(tiny(DETR))
        cfg.model.bbox_head.num_classes = count
        cfg.model.test_cfg.max_per_img = 10
    files = Split(folder / 'x.py', folder / 'x.pth', folder / 'x.onnx')
    cfg.dump(files.config)
    torch.manual_seed(0)
    built = files.cfg()  # a DETR writes into it
    model = MODELS.build(built.model)
    model.init_weights()
    data = make_batch(size=4, side=64)
    loss = getattr(model, 'stock_loss', model.loss)
    calibrate(
        model,
        [data['inputs']],
        lambda x: loss(x, copy.deepcopy(data['data_samples'])),
    )
    torch.save(dict(state_dict=model.state_dict()), files.checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        export_detector(model, built, files.onnx, (64, 96), tuple(CLASSES))
    return files


class Stand:
    """A runtime that runs the parts in PyTorch, one image at a time."""

    def __init__(self, model, metadata):
        self.model, self.metadata = model, metadata
        self.parts = parts_of(model)

    @torch.no_grad()
    def __call__(self, images):
        return self.parts.outputs(self.model, images)


def samples_of(count):
    """Upright images in padding, scaled to half of their size."""
    meta = dict(img_shape=(60, 40), ori_shape=(120, 80))
    meta.update(scale_factor=(0.5, 0.5), batch_input_shape=(64, 64))
    return [DetDataSample(metainfo=dict(meta)) for _ in range(count)]


def test_detects_what_the_whole_detector_does(split):
    """The rest gets the size of the file's images: a DETR masks padding."""
    model = load_detector(split.cfg(), split.checkpoint)
    detector = split.build()
    detector.runtime = Stand(model, detector.runtime.metadata)
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        got = detector.predict(images, samples_of(3))
        wanted = []
        for image in detector.fit(images).split(1):
            (sample,) = samples_of(1)
            sample.set_metainfo(dict(batch_input_shape=(64, 96)))
            wanted += model.predict(image, [sample])
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.metainfo == theirs.metainfo
        for key in ('bboxes', 'scores', 'labels'):
            torch.testing.assert_close(
                ours.pred_instances[key], theirs.pred_instances[key]
            )
    if parts_of(model).head is None:
        assert len(got[0].pred_instances) == 10


def test_the_written_parts_do_not_run(split):
    detector = split.build()
    owners = {name for name, _ in detector.detector.named_parameters()}
    owners = {name.split('.')[0] for name in owners}
    assert not owners & {'backbone', 'neck'}
    assert owners & {'roi_head', 'decoder'}
    detector.predict(torch.zeros(1, 3, 64, 64), samples_of(1))
    with pytest.raises((KeyError, AttributeError)):
        detector.predict(torch.zeros(1, 3, 64, 64), [DetDataSample()])
    # Nothing of a call stays behind.
    assert not [
        name
        for name, module in detector.detector.named_modules()
        if {'extract_feat', 'forward'} & set(vars(module))
    ]


def test_a_model_may_be_built_twice_from_one_config(split):
    model = runtime_model(split.cfg(), split.onnx, split.checkpoint)
    MODELS.build(model)
    MODELS.build(model)
    cfg = split.cfg()
    MODELS.build(cfg.model)
    runtime_model(cfg, split.onnx, split.checkpoint)


def test_configs_that_may_differ(split):
    """PyTorch alone reads test_cfg, and training the teachers."""
    cfg = split.cfg()
    cfg.model.test_cfg.more = 1
    cfg.model.type = cfg.model.pop('detector', cfg.model.type)
    for key in ('teachers', 'kd_heads', 'gor_weighting'):
        cfg.model.pop(key, None)
    model = runtime_model(cfg, split.onnx, split.checkpoint)
    assert model.detector.test_cfg.more == 1
    assert model.detector.type in ('FasterRCNN', 'QuantDeformableDETR')


def test_files_of_another_version(split):
    detector = split.build()
    metadata = detector.runtime.metadata
    for change in (
        dict(rest=[*metadata['rest'], 'mask_head']),
        dict(outputs=metadata['outputs'] * 2),
        dict(outputs=['features_0']),
    ):
        detector.runtime.metadata = {**metadata, **change}
        with pytest.raises(ValueError, match=r'does not fit .* Export it ag'):
            detector._check_parts()


def test_the_file_describes_its_part(split):
    metadata = read_metadata(split.onnx)
    model = load_detector(split.cfg(), split.checkpoint)
    parts = parts_of(model)
    assert metadata['rest'] == parts.rest
    layers = {row['name'].split('.')[0] for row in metadata['quantization']}
    assert layers == set(parts.written)
    groups = [['features'], ['features', 'rpn_head']][parts.head is not None]
    flat = str(metadata['outputs'])
    assert all(f"'{group}_" in flat for group in groups)


def test_file_and_checkpoint_are_compared(split):
    found = verify_export(split.cfg(), split.checkpoint, split.onnx, images=2)
    assert found.images == 4  # whole batches
    assert found.same_weights
    # Float kernels add in another order, which flips single roundings.
    assert max(output.mean for output in found.outputs) < 0.05
    assert len(found.outputs) in (4, 15)


def test_it_runs_with_its_checkpoint_alone(split, tmp_path):
    hint = r'x\.onnx has only a part .*PyTorch has to run .*(roi_|decod).*'
    with pytest.raises(ValueError, match=hint + r'--rest CHECKPOINT \('):
        runtime_model(split.cfg(), split.onnx)
    with pytest.raises(ValueError, match=hint + r'test\.py CONFIG .*--rest'):
        Detector(split.onnx)
    with pytest.raises(ValueError, match=r'got the exported file .*x\.onnx'):
        runtime_model(split.cfg(), split.onnx, split.onnx)
    weights = torch.load(split.checkpoint)
    first = next(iter(weights['state_dict']))
    weights['state_dict'][first] += 1
    other = tmp_path / 'other.pth'
    torch.save(weights, other)
    cfg = runtime_model(split.cfg(), split.onnx, other)
    with pytest.raises(ValueError, match=r'not exported from .*other\.pth: '):
        MODELS.build(cfg)


def test_another_model_than_the_files(split):
    cfg = split.cfg()
    cfg.model.backbone.quant.a_bits = 8
    message = r'model\.backbone\.quant\.a_bits is 8 in the config and 4 in'
    with pytest.raises(ValueError, match=message):
        runtime_model(cfg, split.onnx, split.checkpoint)


def test_a_whole_detector_has_no_rest(exported):
    message = r'has all parts .*, got .*student\.pth. Leave out --rest'
    with pytest.raises(ValueError, match=message):
        runtime_model(exported.cfg(), exported.onnx, exported.checkpoint)


def test_nms_in_the_graph_is_refused(split, tmp_path):
    from mmgor.deploy.export.exporter import export_detector

    model = load_detector(split.cfg(), split.checkpoint)
    message = r'nms=True expected a single-stage .*: in the file: backbone '
    with pytest.raises(ValueError, match=message):
        export_detector(
            model,
            split.cfg(),
            tmp_path / 'x.onnx',
            (64, 96),
            tuple(CLASSES),
            nms=True,
        )
    assert not list(tmp_path.iterdir())


def test_a_float_part_is_refused(split, tmp_path):
    from mmgor.deploy.export.exporter import export_detector

    model = load_detector(split.cfg(), split.checkpoint)
    stock = MODELS.build(tiny(FASTER))
    if hasattr(model, 'roi_head'):
        stock.roi_head = model.roi_head
        cfg, out = split.cfg(), tmp_path / 'x.onnx'
        message = r'^no part of the file is quantized: in the file: backbone '
        with pytest.raises(ValueError, match=message):
            export_detector(stock, cfg, out, (64, 96), tuple(CLASSES))


def test_hooks_may_copy_it(split):
    model = split.build()
    assert ExponentialMovingAverage(model).module.runtime is model.runtime


def test_tool_evaluates_a_file(split, monkeypatch, tmp_path):
    argv = [split.config, split.onnx, '--rest', split.checkpoint]
    argv += ['--work-dir', tmp_path]
    run_tool(monkeypatch, 'test', *argv)
    assert list(tmp_path.glob('2*/*.json'))
    with pytest.raises(ValueError, match=r'--rest expected an exported file'):
        run_tool(
            monkeypatch,
            'test',
            split.config,
            split.checkpoint,
            '--rest',
            split.checkpoint,
        )

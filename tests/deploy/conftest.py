"""A tiny quantized RetinaNet that is exported once for all tests here."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmgor.datasets.shapes import CLASSES
from mmgor.quantization import calibrate
from mmgor.registry import MODELS
from tests.support.training import tiny_scenes, training_config


@dataclass
class Exported:
    """A student's config, checkpoint and exported files.

    Attributes:
        scenes (Path): Data folder; eval.json has four images of 64 px.
        config (Path): Config of a W4A4 ``GoRDetector``.
        checkpoint (Path): Its calibrated weights.
        onnx (Path): Exported for one image of 64 x 96 (height x width).
        xml (Path): The same for OpenVINO.
    """

    scenes: Path
    config: Path
    checkpoint: Path
    onnx: Path
    xml: Path

    def cfg(self) -> Config:
        return Config.fromfile(self.config)

    def model(self) -> nn.Module:
        """The student in evaluation mode."""
        model = MODELS.build(self.cfg().model)
        weights = torch.load(self.checkpoint)['state_dict']
        model.load_state_dict(weights)
        return model.eval()


@pytest.fixture(scope='session')
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    pytest.importorskip('onnx')
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    pytest.importorskip('openvino')
    from mmgor.deploy.export.exporter import export_detector
    from mmgor.deploy.export.saving import to_openvino

    init_default_scope('mmdet')
    folder = tmp_path_factory.mktemp('exported')
    files = Exported(
        scenes=tiny_scenes(tmp_path_factory.mktemp('scenes')),
        config=folder / 'student.py',
        checkpoint=folder / 'student.pth',
        onnx=folder / 'student.onnx',
        xml=folder / 'student.xml',
    )
    # A teacher is needed for training only.
    teacher = dict(config='unused.py', checkpoint='unused.pth')
    cfg = training_config(files.scenes, folder / 'work', teacher)
    cfg.dump(files.config)
    torch.manual_seed(0)
    model = MODELS.build(files.cfg().model)
    images = torch.randn(4, 3, 64, 96)
    calibrate(model, [images], model)
    # Calibration used the statistics of the batch: store them.
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    model.train()(images)
    meta = dict(dataset_meta=dict(classes=CLASSES))
    torch.save(
        dict(state_dict=model.state_dict(), meta=meta), files.checkpoint
    )
    export_detector(model, files.cfg(), files.onnx, (64, 96), tuple(CLASSES))
    # To trace the model again would take longer than all tests.
    to_openvino(files.onnx, files.xml)
    return files

"""``Detector`` and tools/detect.py: detection with only the exported file."""

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmdet.apis import inference_detector

from mmgor.datasets.shapes import CLASSES
from mmgor.deploy.description.metadata_reader import exported_config
from mmgor.deploy.runtime.detector import Detector
from mmgor.deploy.runtime.runtime_config import runtime_model
from mmgor.registry import MODELS

TOOL = Path(__file__).resolve().parents[3] / 'tools' / 'detect.py'


@pytest.fixture(scope='module')
def detector(exported):
    """Keeps all ten boxes that the untrained student finds in an image."""
    return Detector(exported.onnx, threads=1, score_thr=0.0)


@pytest.fixture(scope='module')
def images(exported):
    return sorted((exported.scenes / 'images').iterdir())


def same(got, wanted):
    for key in ('bboxes', 'scores', 'labels'):
        torch.testing.assert_close(
            got.pred_instances[key], wanted.pred_instances[key]
        )


def test_detects_the_same_as_mmdet(detector, images, exported):
    model = MODELS.build(runtime_model(exported.cfg(), exported.onnx)).eval()
    model.cfg = exported.cfg()
    model.cfg.test_dataloader.dataset.pipeline.pop(1)  # LoadAnnotations
    wanted = inference_detector(model, str(images[0]))
    assert len(wanted.pred_instances) == 10
    same(detector(images[0])[0], wanted)
    same(detector(str(images[0]))[0], wanted)
    same(detector(mmcv.imread(images[0]))[0], wanted)
    assert detector.classes == list(CLASSES)


def test_score_threshold(detector, exported, images):
    scores = detector(images[0])[0].pred_instances.scores
    least = float(scores[4:6].mean())
    selective = Detector(exported.onnx, threads=1, score_thr=least)
    got = selective(images[0])[0].pred_instances.scores
    torch.testing.assert_close(got, scores[:5])


def test_boxes_are_in_pixels_of_the_image(detector, images):
    small = mmcv.imread(images[0])
    # Four equal pixels for each one; the pipeline halves both sides again.
    large = small.repeat(2, 0).repeat(2, 1)
    (wanted,) = detector(small)
    (got,) = detector(large)
    torch.testing.assert_close(
        got.pred_instances.bboxes, 2 * wanted.pred_instances.bboxes
    )


def test_lists_folders_and_batches(detector, images, tmp_path):
    one_by_one = [detector(path)[0] for path in images[:3]]
    for sample, wanted in zip(detector(images[:3]), one_by_one, strict=True):
        same(sample, wanted)
    for path, name in zip(images[:3], ('c.PNG', 'a.png', 'b.png')):
        shutil.copy(path, tmp_path / name)
    (tmp_path / 'notes.txt').touch()
    (tmp_path / 'd.png').mkdir()
    folder = detector(tmp_path, batch_size=2)
    for sample, i in zip(folder, (1, 2, 0), strict=True):
        same(sample, one_by_one[i])


def test_inputs_that_are_not_images(detector, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'image not found: .*none'):
        detector(tmp_path / 'none.png')
    with pytest.raises(FileNotFoundError, match=r'image not found: .*none'):
        detector([tmp_path / 'none.png'])
    with pytest.raises(ValueError, match=r'no image in .*\.jpg, '):
        detector(tmp_path)
    (tmp_path / 'broken.png').write_bytes(b'not an image')
    with pytest.raises(ValueError, match=r'broken\.png could not be decoded'):
        detector(tmp_path)
    (tmp_path / 'broken.png').write_bytes(b'')
    with pytest.raises(ValueError, match=r'broken\.png could not be decoded'):
        detector(tmp_path)
    with pytest.raises(ValueError, match=r'shape \(1, 3000, 3\) could not'):
        detector(np.zeros((1, 3000, 3), np.uint8))
    with pytest.raises(ValueError, match=r'\(H, W, 3\), got .*\(0, 8, 3\)'):
        detector(np.zeros((0, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r'\(H, W, 3\), got .*\(8, 8\)'):
        detector(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match=r'of uint8 .*got float64'):
        detector(np.zeros((8, 8, 3)))
    with pytest.raises(ValueError, match=r'batch_size must be at least 1'):
        detector([], batch_size=0)
    with pytest.raises(TypeError, match=r"image's path, .* got NoneType"):
        detector(None)
    with pytest.raises(TypeError, match=r"image's path, .* got Tensor"):
        detector(torch.zeros(8, 8, 3))
    with pytest.raises(TypeError, match=r"image's path, .* got int"):
        detector([3])


@pytest.mark.parametrize('score_thr', [float('nan'), 2, -1, '0.3', None])
def test_odd_score_thresholds(score_thr):
    with pytest.raises(ValueError, match='score_thr must be'):
        Detector('student.onnx', score_thr=score_thr)


@pytest.fixture(scope='module')
def clip(images, tmp_path_factory):
    """Three images as a lossless video."""
    path = tmp_path_factory.mktemp('clip') / 'clip.avi'
    codec = cv2.VideoWriter_fourcc(*'FFV1')
    writer = cv2.VideoWriter(str(path), codec, 5, (64, 64))
    if not writer.isOpened():
        pytest.skip('this OpenCV has no FFV1')
    for image in images[:3]:
        writer.write(mmcv.imread(image))
    writer.release()
    return path


def test_video(detector, clip, images, tmp_path):
    frames = list(detector.video(clip))
    for (frame, sample), path in zip(frames, images[:3], strict=True):
        assert np.abs(frame.astype(int) - mmcv.imread(path)).max() <= 3
        same(sample, detector(frame)[0])
    with pytest.raises(FileNotFoundError, match='video not found'):
        detector.video(tmp_path / 'none.avi')
    (tmp_path / 'broken.avi').write_bytes(b'not a video')
    with pytest.raises(ValueError, match='no frame that OpenCV can decode'):
        detector.video(tmp_path / 'broken.avi')


def test_video_without_a_number_of_frames(detector, images, tmp_path):
    stream = [cv2.imencode('.jpg', mmcv.imread(p))[1] for p in images[:3]]
    path = tmp_path / 'camera.mjpeg'
    path.write_bytes(b''.join(frame.tobytes() for frame in stream))
    frames = [frame for frame, _ in detector.video(path)]
    for frame, data in zip(frames, stream, strict=True):
        wanted = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert np.abs(frame.astype(int) - wanted).mean() < 3


@pytest.mark.parametrize(
    'pipeline, got',
    [
        ([], 'no pipeline'),
        ([dict(type='PackDetInputs')], 'PackDetInputs'),
    ],
)
def test_files_without_loading(pipeline, got, exported, monkeypatch):
    def config(metadata):
        cfg = exported_config(metadata)
        cfg.test_dataloader.dataset.pipeline = pipeline
        return cfg

    monkeypatch.setattr(
        'mmgor.deploy.runtime.detector.exported_config', config
    )
    with pytest.raises(ValueError, match=f'LoadImageFromFile, got {got};'):
        Detector(exported.onnx)


def test_scope_in_the_pipeline(exported, images, monkeypatch):
    def config(metadata):
        cfg = exported_config(metadata)
        cfg.test_dataloader.dataset.pipeline[0].type = 'mmcv.LoadImageFromFile'
        return cfg

    monkeypatch.setattr(
        'mmgor.deploy.runtime.detector.exported_config', config
    )
    (sample,) = Detector(exported.onnx, threads=1, score_thr=0.0)(images[0])
    assert len(sample.pred_instances) == 10


def test_draws_boxes(detector, images):
    image = np.full((200, 300, 3), (250, 10, 10), np.uint8)  # blue in BGR
    (sample,) = detector(images[0])
    sample.pred_instances = sample.pred_instances[:1]
    sample.pred_instances.bboxes = torch.tensor([[50.0, 60.0, 150.0, 120.0]])
    before = image.copy()
    drawn = detector.draw(image, sample)
    assert (image == before).all()
    assert drawn.shape == image.shape
    changed = np.abs(drawn.astype(int) - image).max(2) > 20
    assert changed[119:122, 60:140].any(0).all()  # the lower edge
    assert not changed[160:, 200:].any()
    assert (drawn[160:, 200:] == (250, 10, 10)).all()
    sample.pred_instances = sample.pred_instances[:0]
    assert (detector.draw(image, sample) == image).all()


@pytest.mark.slow
def test_tool_needs_nothing_but_the_file(detector, exported, images, tmp_path):
    """As on another machine: without config, checkpoint and data set."""
    shutil.copy(exported.onnx, tmp_path / 'student.onnx')
    shutil.copytree(exported.scenes / 'images', tmp_path / 'in')
    scores = [d.pred_instances.scores for d in detector(images)]
    threshold = torch.cat(scores).median() + 1e-6
    done = subprocess.run(
        [
            *(sys.executable, '-W', 'ignore', str(TOOL), 'student.onnx'),
            *('in', '--out', 'out', '--score-thr', f'{threshold:.7f}'),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names = [path.name for path in images]
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == names
    lines = done.stdout.splitlines()[-len(names) :]
    for name, line, found in zip(names, lines, scores, strict=True):
        assert line.startswith(f'out/{name}: ')
        counts = [int(word) for word in line.split() if word.isdigit()]
        assert sum(counts) == (found >= threshold).sum()


def load_tool():
    spec = importlib.util.spec_from_file_location('detect_tool', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_tool_skips_files_that_are_not_images(
    exported, tmp_path, monkeypatch, capsys
):
    shutil.copytree(exported.scenes / 'images', tmp_path / 'in')
    good = len(list((tmp_path / 'in').iterdir()))
    (tmp_path / 'in' / '0.png').write_bytes(b'not an image')
    out = tmp_path / 'out'
    argv = ['x', str(exported.onnx), str(tmp_path / 'in'), '--out', str(out)]
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit, match='skipped images: 1, see'):
        load_tool().main()
    assert re.search(
        r'skipped: .*0\.png could not be decoded', capsys.readouterr().err
    )
    assert len(list(out.iterdir())) == good


def test_tool_writes_a_video(exported, clip, tmp_path, monkeypatch, capsys):
    argv = ['x', str(exported.onnx), str(clip), '--out', str(tmp_path / 'o')]
    monkeypatch.setattr(sys, 'argv', argv)
    load_tool().main()
    assert capsys.readouterr().out.endswith('clip.mp4: 3 frames\n')
    video = mmcv.VideoReader(str(tmp_path / 'o' / 'clip.mp4'))
    assert (len(video), video.resolution, video.fps) == (3, (64, 64), 5)


def test_tool_keeps_a_good_video(exported, clip, tmp_path, monkeypatch):
    """If detection stops in the middle."""
    (tmp_path / 'clip.mp4').write_text('good')
    argv = ['x', str(exported.onnx), str(clip), '--out', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', argv)
    frames = []

    def draw(self, image, sample):
        frames.append(image)
        if len(frames) == 2:
            raise RuntimeError('stopped')
        return image

    monkeypatch.setattr(Detector, 'draw', draw)
    with pytest.raises(RuntimeError, match='stopped'):
        load_tool().main()
    (left,) = tmp_path.iterdir()
    assert left.read_text() == 'good'


def test_tool_keeps_a_good_video_on_a_full_disk(
    tmp_path, monkeypatch, small_disk
):
    (tmp_path / 'clip.mp4').write_text('good')
    tool = load_tool()
    size = SimpleNamespace(fps=5, resolution=(320, 240))
    monkeypatch.setattr(tool, 'open_video', lambda source: size)
    noise = np.random.default_rng(0).integers(256, size=(10, 240, 320, 3))
    detector = SimpleNamespace(
        video=lambda source: [(frame, None) for frame in noise.astype('u1')],
        draw=lambda frame, sample: frame,
    )
    with pytest.raises(OSError, match='expected 10 frames, got'):
        tool.detect_video(detector, Path('clip.avi'), tmp_path)
    (left,) = tmp_path.iterdir()
    assert left.read_text() == 'good'


@pytest.mark.parametrize(
    'source, out, message',
    [
        ('.', '.', 'would overwrite the input'),
        ('a.png', '.', 'would overwrite the input'),
        ('none.png', 'out', 'input not found: none.png'),
    ],
)
def test_tool_overwrites_nothing(
    source, out, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.png').touch()
    monkeypatch.setattr(sys, 'argv', ['x', 'm.onnx', source, '--out', out])
    with pytest.raises(SystemExit):
        load_tool().main()
    assert message in capsys.readouterr().err

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path
from shutil import copy

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmgor.datasets.shapes import CLASSES
from mmgor.deploy.description.checksum import (
    BIN_KEY,
    ONNX_KEY,
    append_onnx_checksum,
)
from mmgor.deploy.description.metadata import KEY, make_metadata
from mmgor.deploy.description.metadata_reader import (
    READERS,
    exported_config,
    read_metadata,
)
from mmgor.deploy.export.exporter import WRITERS, export_detector
from mmgor.deploy.export.graph_nms import GraphNMS
from mmgor.deploy.head_outputs import name_outputs
from mmgor.deploy.runtime.runtime import BACKENDS
from mmgor.quantization import calibrate, quantized_layers
from mmgor.registry import MODELS
from mmgor.targets import TARGETS
from tests.support.models import quantized_cfg, retinanet_cfg
from tests.support.onnx_files import run_onnx

NAMES = ('a', 'b', 'c')
onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


def shallow_cfg():
    """Two stages and two levels: the trace takes seconds."""
    cfg = quantized_cfg(
        w_bits=4,
        a_bits=4,
        input_quantizer=dict(type='LSQPlusQuantizer'),
    )
    cfg.backbone.update(num_stages=2, out_indices=(0, 1))
    cfg.backbone.update(strides=(1, 2), dilations=(1, 1))
    cfg.neck.update(in_channels=[8, 16], start_level=0, num_outs=2)
    cfg.bbox_head.anchor_generator.strides = [4, 8]
    return cfg


@pytest.fixture(scope='module')
def shallow():
    torch.manual_seed(0)
    model = MODELS.build(shallow_cfg())
    calibrate(model, [torch.randn(2, 3, 64, 64)], model)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.running_mean, std=0.1)
    return model.eval()


def test_dynamic_file(shallow, tmp_path):
    path = tmp_path / 'net.onnx'
    cfg = Config(dict(model=shallow_cfg()))
    done = export_detector(
        shallow, cfg, path, (64, 64), ('a', 'b', 'c'), dynamic=True, int4=True
    )
    assert done['bytes'] == path.stat().st_size
    assert done['folded'] == 10
    for shape in ((1, 3, 32, 96), (3, 3, 64, 64)):
        images = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            scores, boxes = shallow(images)
        got = run_onnx(path, images)
        for a, b in zip([*scores, *boxes], got, strict=True):
            # Sums in another order may flip quantization steps.
            assert (a - b).abs().mean() < 0.02 * a.std()
    graph = onnx.load(path).graph
    kinds = {node.op_type for node in graph.node}
    assert {'QuantizeLinear', 'Clip', 'DequantizeLinear'} <= kinds
    assert 'BatchNormalization' not in kinds
    stored = {i.name: i.data_type for i in graph.initializer}
    assert onnx.TensorProto.INT4 in stored.values()
    assert read_metadata(path)['input'] == dict(
        name='images',
        batch=None,
        channels=3,
        height=None,
        width=None,
        divisor=32,
    )


def test_nms_in_the_graph_reads_what_the_head_gives(exported, tmp_path):
    path, size, model = tmp_path / 'nms.onnx', (64, 96), exported.model()
    export_detector(model, exported.cfg(), path, size, CLASSES, nms=True)
    images = torch.randn(
        1, 3, *size, generator=torch.Generator().manual_seed(0)
    )
    maps = run_onnx(exported.onnx, images)
    outputs = maps[: len(maps) // 2], maps[len(maps) // 2 :]
    expected = GraphNMS(model.bbox_head, size, outputs)(outputs)
    assert len(expected[0]) == model.test_cfg.max_per_img
    for a, b in zip(expected, run_onnx(path, images), strict=True):
        torch.testing.assert_close(b, a)


def test_graph_has_the_trained_integers(exported):
    model = exported.model()
    layer = model.bbox_head.retina_cls
    expected, grid = layer.weight_integers()
    graph = onnx.load(exported.onnx).graph
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    same = [
        name
        for name, array in arrays.items()
        if array.dtype == 'int8'
        and array.shape == tuple(expected.shape)
        and (array == expected.numpy()).all()
    ]
    assert len(same) == 1
    node = next(n for n in graph.node if same[0] in n.input)
    scale = torch.from_numpy(arrays[node.input[1]].copy())
    torch.testing.assert_close(scale, grid.scale)


def test_metadata(exported):
    metadata = read_metadata(exported.onnx)
    assert metadata == read_metadata(exported.xml)
    assert metadata['classes'] == list(CLASSES)
    assert metadata['model'] == 'RetinaNet'
    assert metadata['input']['height'] == 64
    assert metadata['input']['width'] == 96
    assert [len(level) for level in metadata['outputs']] == [5, 5]
    layers = quantized_layers(exported.model())
    assert [q['name'] for q in metadata['quantization']] == list(layers)
    first = metadata['quantization'][0]
    assert (first['w_bits'], first['a_bits']) == (8, 8)
    cfg = exported_config(metadata)
    full = exported.cfg()
    for part in ('backbone', 'neck', 'bbox_head', 'data_preprocessor'):
        assert cfg.model[part] == full.model[part]
    # No settings of the training and no paths.
    assert 'teachers' in full.model and 'teachers' not in cfg.model
    assert list(cfg.test_dataloader.dataset) == ['pipeline']
    pipeline = full.test_dataloader.dataset.pipeline
    assert cfg.test_dataloader.dataset.pipeline == pipeline
    assert any(isinstance(step.get('scale'), tuple) for step in pipeline)
    names = [n for level in metadata['outputs'] for n in level]
    graph = onnx.load(exported.onnx).graph
    assert [o.name for o in graph.output] == names


def test_names_keep_the_structure():
    t = torch.zeros(1)
    assert name_outputs(([t, t], [t])) == [
        ['output_0_0', 'output_0_1'],
        ['output_1_0'],
    ]


def test_float_detector(tmp_path):
    model = MODELS.build(retinanet_cfg())
    with pytest.raises(ValueError, match='no quantized layer'):
        export_detector(
            model,
            Config(dict(model=retinanet_cfg())),
            tmp_path / 'net.onnx',
            (64, 64),
            NAMES,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('size', [(64, 65), (0, 64), (64, 8192)])
def test_size(shallow, tmp_path, size):
    cfg = Config(dict(model=shallow_cfg()))
    with pytest.raises(ValueError, match=r'multiples of 32 .*pad_size_div'):
        export_detector(shallow, cfg, tmp_path / 'n.onnx', size, NAMES)


def test_batch(shallow, tmp_path):
    cfg = Config(dict(model=shallow_cfg()))
    with pytest.raises(ValueError, match='batch must be an integer of'):
        export_detector(
            shallow, cfg, tmp_path / 'n.onnx', (64, 64), NAMES, batch=0
        )


@pytest.mark.parametrize(
    'odd',
    [
        dict(size='64'),
        dict(size=64),
        dict(size=(64,)),
        dict(size=(64, 64.0)),
        dict(batch='1'),
        dict(dynamic='yes'),
        dict(int4=1),
        dict(nms=None),
    ],
    ids=str,
)
def test_odd_values(shallow, tmp_path, odd):
    cfg = Config(dict(model=shallow_cfg()))
    given = dict(size=(64, 64), classes=NAMES) | odd
    with pytest.raises(ValueError, match=f'^{next(iter(odd))}.* must be'):
        export_detector(shallow, cfg, tmp_path / 'n.onnx', **given)


def test_dynamic_size(shallow, tmp_path):
    cfg = Config(dict(model=shallow_cfg()))
    cfg.model.data_preprocessor.pad_size_divisor = 1
    with pytest.raises(ValueError, match=r'of 32 \(.*, and 32 for dynamic'):
        export_detector(
            shallow, cfg, tmp_path / 'n.onnx', (64, 65), NAMES, dynamic=True
        )


def test_number_of_classes(shallow, tmp_path):
    cfg = Config(dict(model=shallow_cfg()))
    with pytest.raises(ValueError, match=r"of 3 classes, .* got \['a', 'b'\]"):
        export_detector(
            shallow, cfg, tmp_path / 'n.onnx', (64, 64), ('a', 'b')
        )


def test_suffix(shallow, tmp_path):
    cfg = Config(dict(model=shallow_cfg()))
    with pytest.raises(ValueError, match=r'ending in \.onnx or \.xml'):
        export_detector(shallow, cfg, tmp_path / 'n.pth', (64, 64), NAMES)


def test_every_format_is_written_read_and_run():
    read_by_targets = {s for t in TARGETS.values() for s in t.suffixes}
    assert set(WRITERS) == set(READERS) == set(BACKENDS) == read_by_targets


@pytest.mark.parametrize('suffix', ['.tflite', '.param', '.pte'])
@pytest.mark.parametrize('option', ['dynamic', 'nms'])
def test_options_of_formats(shallow, tmp_path, suffix, option):
    cfg, path = Config(dict(model=shallow_cfg())), tmp_path / f'n{suffix}'
    match = rf'{suffix} file takes images of one size .*{option}=True.* Leave'
    with pytest.raises(ValueError, match=match):
        export_detector(shallow, cfg, path, (64, 64), NAMES, **{option: True})
    assert not list(tmp_path.iterdir())


def test_ncnn_takes_one_image(shallow, tmp_path):
    cfg, path = Config(dict(model=shallow_cfg())), tmp_path / 'n.param'
    with pytest.raises(ValueError, match=r'expected batch=1, got 2\. Leave'):
        export_detector(shallow, cfg, path, (64, 64), NAMES, batch=2)


@pytest.mark.parametrize(
    'there, name', [('.xml', 'n_param.param'), ('.param', 'n_xml.xml')]
)
def test_weights_of_another_format_stay(shallow, tmp_path, there, name):
    (tmp_path / 'n').with_suffix(there).touch()
    path = (tmp_path / 'n').with_suffix(Path(name).suffix)
    cfg = Config(dict(model=shallow_cfg()))
    with pytest.raises(ValueError, match=rf'would replace\. Type .*{name}'):
        export_detector(shallow, cfg, path, (64, 64), NAMES)
    assert [p.name for p in tmp_path.iterdir()] == [f'n{there}']


def test_an_error_leaves_no_file(shallow, tmp_path, monkeypatch):
    def full_disk(source, target):
        target.with_suffix('.bin').touch()
        raise OSError('disk full')

    cfg = Config(dict(model=shallow_cfg()))
    monkeypatch.setattr('mmgor.deploy.export.saving.to_openvino', full_disk)
    with pytest.raises(OSError, match='disk full'):
        export_detector(shallow, cfg, tmp_path / 'n.xml', (64, 64), NAMES)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def untraced(monkeypatch):
    """A trace would take longer than the test."""

    def trace(*_):
        raise RuntimeError('traced')

    monkeypatch.setattr('mmgor.deploy.export.onnx_writer._trace', trace)


def test_configs_with_unregistered_classes(shallow, tmp_path, untraced):
    """They are refused before the trace."""
    cfg = Config(dict(model=shallow_cfg()))
    cfg.model.backbone.backbone = type('Own', (nn.Module,), {})
    with pytest.raises(ValueError, match=r'Own, which is in no registry'):
        export_detector(shallow, cfg, tmp_path / 'n.onnx', (64, 64), NAMES)


def test_configs_without_test_pipeline(shallow, tmp_path, untraced):
    cfg = Config(dict(model=shallow_cfg()))
    with (
        pytest.raises(RuntimeError, match='traced'),
        pytest.warns(UserWarning, match=r'no test pipeline .*Detector and to'),
    ):
        export_detector(shallow, cfg, tmp_path / 'n.onnx', (64, 64), NAMES)


def test_preprocessor_beside_the_model():
    model = retinanet_cfg()
    preprocessor = model.pop('data_preprocessor')
    cfg = Config(dict(model=model, data_preprocessor=preprocessor))
    metadata = make_metadata(cfg, nn.Module(), NAMES, (1, 64, 64), 32, [])
    assert metadata['preprocessing'] == preprocessor
    assert exported_config(metadata).model.data_preprocessor == preprocessor


def test_metadata_has_no_paths():
    model = retinanet_cfg()
    secret = '/home/alice/weights.pth'
    model.init_cfg = dict(type='Pretrained', checkpoint=secret)
    model.backbone.init_cfg = [dict(type='Pretrained', checkpoint=secret)]
    model.neck = [dict(type='A'), dict(type='B', pretrained=secret)]
    load = dict(
        type='LoadImageFromFile', backend_args=dict(path_mapping={'a': secret})
    )
    loader = dict(dataset=dict(pipeline=[load]))
    cfg = Config(dict(model=model, test_dataloader=loader))
    metadata = make_metadata(cfg, nn.Module(), NAMES, (1, 64, 64), 32, [])
    assert 'alice' not in json.dumps(metadata)
    kept = exported_config(metadata)
    assert kept.model.backbone.depth == 18
    assert kept.model.neck == [dict(type='A'), dict(type='B')]
    assert kept.test_dataloader.dataset.pipeline == [
        dict(type='LoadImageFromFile')
    ]


def save(model, path):
    """Save with the right checksum."""
    onnx.save(model, path)
    append_onnx_checksum(path)


def test_foreign_and_missing_files(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'tools/export\.py CONFIG'):
        read_metadata(tmp_path / 'none.onnx')
    with pytest.raises(ValueError, match=r'expected a \.onnx or'):
        read_metadata(exported.checkpoint)
    model = onnx.load(exported.onnx)
    assert model.metadata_props.pop().key == ONNX_KEY
    newer = json.loads(model.metadata_props[0].value)
    newer.update(format=99)
    model.metadata_props[0].value = json.dumps(newer)
    assert model.metadata_props[0].key == KEY
    save(model, tmp_path / 'newer.onnx')
    with pytest.raises(ValueError, match='metadata of format 99'):
        read_metadata(tmp_path / 'newer.onnx')
    for text in ('{x', '[]', '{}'):
        model.metadata_props[0].value = text
        save(model, tmp_path / 'damaged.onnx')
        with pytest.raises(ValueError, match=r'damaged\.onnx has damaged or'):
            read_metadata(tmp_path / 'damaged.onnx')
    del model.metadata_props[:]
    onnx.save(model, tmp_path / 'foreign.onnx')
    with pytest.raises(ValueError, match='no mmgor metadata'):
        read_metadata(tmp_path / 'foreign.onnx')
    whole = exported.onnx.read_bytes()
    (tmp_path / 'cut.onnx').write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match='could not be read as ONNX'):
        read_metadata(tmp_path / 'cut.onnx')


def test_onnx_ends_with_the_checksum_of_all_before(exported, tmp_path):
    content = exported.onnx.read_bytes()
    entry = onnx.load(exported.onnx).metadata_props[-1]
    end = onnx.ModelProto(metadata_props=[entry]).SerializeToString()
    assert content.endswith(end)
    before = content[: -len(end)]
    assert entry.value == sha256(before).hexdigest()
    onnx.checker.check_model(onnx.load_from_string(before))


def test_one_damaged_bit(exported, tmp_path):
    """The file is still a valid ONNX model, with another weight."""
    model = onnx.load(exported.onnx)
    largest = max(model.graph.initializer, key=lambda i: len(i.raw_data))
    content = bytearray(exported.onnx.read_bytes())
    content[content.index(largest.raw_data) + 7] ^= 1
    path = tmp_path / 'damaged.onnx'
    path.write_bytes(content)
    onnx.checker.check_model(onnx.load(path))
    with pytest.raises(ValueError, match=r'damaged\.onnx has changed since'):
        read_metadata(path)


def test_a_missing_checksum(exported, tmp_path):
    model = onnx.load(exported.onnx)
    assert model.metadata_props.pop().key == ONNX_KEY
    onnx.save(model, tmp_path / 'bare.onnx')
    with pytest.raises(ValueError, match=r'bare\.onnx has changed .*missing'):
        read_metadata(tmp_path / 'bare.onnx')
    text = exported.xml.read_text()
    assert text.count(f'<{BIN_KEY} ') == 1
    (tmp_path / 'bare.xml').write_text(text.replace(BIN_KEY, 'other'))
    copy(exported.xml.with_suffix('.bin'), tmp_path / 'bare.bin')
    with pytest.raises(ValueError, match=r'bare\.bin is not .*missing'):
        read_metadata(tmp_path / 'bare.xml')


def test_onnx_saved_by_another_program(exported, tmp_path):
    model = onnx.load(exported.onnx)
    model.doc_string = 'changed'
    onnx.save(model, tmp_path / 'other.onnx')
    with pytest.raises(ValueError, match=r'other\.onnx has changed since'):
        read_metadata(tmp_path / 'other.onnx')


def test_one_rounding_for_equal_grids(exported):
    """Calibration gives all layers that read a tensor the same grid."""
    graph = onnx.load(exported.onnx).graph
    rounded = [n for n in graph.node if n.op_type == 'QuantizeLinear']
    assert len({tuple(node.input) for node in rounded}) == len(rounded)
    readers = Counter(n.input[0] for n in graph.node if n.op_type == 'Conv')
    # Two blocks with a downsampling, the laterals of their inputs, and the
    # first convolutions of the head at five levels.
    assert sum(count > 1 for count in readers.values()) >= 5

"""Both runtimes on a hand-written file and on the exported student."""

import copy
import re
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch

from mmgor.deploy.description.checksum import append_onnx_checksum
from mmgor.deploy.description.metadata import KEY
from mmgor.deploy.export.saving import save_openvino
from mmgor.deploy.head_outputs import map_nested
from mmgor.deploy.runtime.runtime import open_runtime
from tests.support.metadata import small_metadata

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')
openvino = pytest.importorskip('openvino')
PAGE = Path(__file__).resolve().parents[3] / 'docs' / 'export.md'
STATIC = dict(batch=2, height=32, width=64)
DYNAMIC = dict(batch=None, height=None, width=None)


def write(folder, suffix, spec=DYNAMIC, operator='Mul', **changes):
    """Write a file with metadata that doubles and triples its input."""
    helper = onnx.helper
    shape = [spec['batch'], 3, spec['height'], spec['width']]
    real = onnx.TensorProto.FLOAT
    names = ['output_0_0', 'output_1_0']
    graph = helper.make_graph(
        [
            helper.make_node(operator, ['images', factor], [name])
            for factor, name in zip(('two', 'three'), names)
        ],
        'graph',
        [helper.make_tensor_value_info('images', real, shape)],
        [helper.make_tensor_value_info(name, real, shape) for name in names],
        [
            helper.make_tensor('two', real, [], [2.0]),
            helper.make_tensor('three', real, [], [3.0]),
        ],
    )
    opset = [helper.make_opsetid('', 21)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    usual = dict(
        input=dict(name='images', channels=3, divisor=32, **spec),
        outputs=[['output_0_0'], ['output_1_0']],
    )
    text = small_metadata(**{**usual, **changes})
    path = folder / f'file{suffix}'
    helper.set_model_props(model, {KEY: text})
    onnx.save(model, path.with_suffix('.onnx'))
    append_onnx_checksum(path.with_suffix('.onnx'))
    if suffix == '.xml':
        converted = openvino.convert_model(path.with_suffix('.onnx'))
        save_openvino(converted, text, path)
    return path


both = pytest.mark.parametrize('suffix', ['.onnx', '.xml'])


@both
@pytest.mark.parametrize('spec', [STATIC, DYNAMIC], ids=['static', 'dynamic'])
def test_outputs_by_name_and_structure(suffix, spec, tmp_path):
    runtime = open_runtime(write(tmp_path, suffix, spec), threads=1)
    images = torch.randn(2, 3, 32, 64)
    (double,), (triple,) = runtime(images)
    runtime(torch.zeros(2, 3, 32, 64))  # must not change earlier results
    torch.testing.assert_close(double, 2 * images)
    torch.testing.assert_close(triple, 3 * images)


@both
def test_any_size_of_a_dynamic_file(suffix, tmp_path):
    runtime = open_runtime(write(tmp_path, suffix), threads=1)
    for shape in ((1, 3, 96, 32), (3, 3, 32, 160)):
        assert runtime(torch.ones(shape))[1][0].shape == shape


@pytest.mark.parametrize(
    'spec, images, message',
    [
        (STATIC, torch.zeros(1, 3, 32, 64), r'batches of 2, got 1 images'),
        (STATIC, torch.zeros(2, 3, 32, 32), r'images of 32 x 64 .*32 x 32'),
        (STATIC, torch.zeros(2, 3, 64, 64), r'images of 32 x 64 .*64 x 64'),
        (DYNAMIC, torch.zeros(1, 3, 32, 50), r'multiples of 32, got 32 x 50'),
        (DYNAMIC, torch.zeros(3, 32, 64), r'\(N, 3, height, width\), got'),
        (DYNAMIC, torch.zeros(1, 1, 32, 64), r'\(N, 3, height, width\), got'),
        (DYNAMIC, torch.zeros(1, 3, 32, 64).byte(), 'float32 images'),
    ],
    ids=['batch', 'width', 'height', 'unit', 'dims', 'grey', 'dtype'],
)
def test_other_images_are_refused(spec, images, message, tmp_path):
    runtime = open_runtime(write(tmp_path, '.onnx', spec), threads=1)
    with pytest.raises(ValueError, match=message):
        runtime(images)


@both
def test_files_that_are_not_exports(suffix, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'tools/export\.py CONFIG'):
        open_runtime(tmp_path / f'none{suffix}')
    path = write(tmp_path, suffix, format=99, version='9.0')
    with pytest.raises(ValueError, match=r'format 99, written by mmgor 9\.0'):
        open_runtime(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match='could not be read'):
        open_runtime(path)


def test_a_missing_bin_file(tmp_path):
    path = write(tmp_path, '.xml')
    path.with_suffix('.bin').unlink()
    with pytest.raises(ValueError, match=r'its \.bin is missing'):
        open_runtime(path)


def test_weights_of_another_export(exported, tmp_path):
    path = tmp_path / 'student.xml'
    shutil.copy(exported.xml, path)
    weights = bytearray(exported.xml.with_suffix('.bin').read_bytes())
    path.with_suffix('.bin').write_bytes(weights)
    open_runtime(path, threads=1)
    weights[len(weights) // 2] ^= 1  # the same architecture
    path.with_suffix('.bin').write_bytes(weights)
    with pytest.raises(ValueError, match=r'student\.bin is not the file that'):
        open_runtime(path)


def test_operators_that_the_backend_lacks(tmp_path):
    path = write(tmp_path, '.onnx', operator='NoSuchThing')
    with pytest.raises(ValueError, match='could not be opened by ONNX Runt'):
        open_runtime(path)


@pytest.mark.parametrize('threads', [0, -1, 1.5, '2', 10**6])
def test_threads(threads, tmp_path):
    with pytest.raises(ValueError, match=f'from 1 to 1024, got {threads!r}'):
        open_runtime(write(tmp_path, '.onnx'), threads)


@pytest.mark.parametrize(
    'suffix, package', [('.onnx', 'onnxruntime'), ('.xml', 'openvino')]
)
def test_backend_that_is_not_installed(suffix, package, tmp_path, monkeypatch):
    path = write(tmp_path, suffix)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf'{package} is not installed.*pip'):
        open_runtime(path)


def test_copies_share_the_opened_file(tmp_path):
    runtime = open_runtime(write(tmp_path, '.onnx'), threads=1)
    assert copy.deepcopy(dict(runtime=runtime))['runtime'] is runtime


@both
def test_exported_student_computes_the_same(suffix, exported):
    path = exported.onnx if suffix == '.onnx' else exported.xml
    runtime = open_runtime(path, threads=1)
    model = exported.model()
    images = torch.randn(
        1, 3, 64, 96, generator=torch.Generator().manual_seed(5)
    )
    with torch.no_grad():
        expected = model.bbox_head(model.extract_feat(images))

    def apart(got, want):
        # Sums of floats in another order flip single steps. Integer kernels
        # would round all biases, which gives 0.2 or more.
        assert (got - want).abs().mean() < 0.05 * want.std()
        return 1

    counted = map_nested(apart, runtime(images), expected)
    assert counted == [[1] * 5, [1] * 5]


def test_the_page_opens_files_without_mmgor(exported, monkeypatch):
    """Its options make the runtimes exact."""
    blocks = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.S)
    (block,) = (b for b in blocks if 'InferenceSession' in b)
    monkeypatch.chdir(exported.onnx.parent)  # student.onnx and student.xml
    opened = {}
    exec(block, opened)
    images = torch.randn(
        1, 3, 64, 96, generator=torch.Generator().manual_seed(5)
    )
    model = exported.model()
    with torch.no_grad():
        scores, boxes = model.bbox_head(model.extract_feat(images))
    results = opened['compiled']({'images': images.numpy()})
    for found in (
        opened['session'].run(None, {'images': images.numpy()}),
        [results[i] for i in range(10)],
    ):
        for got, want in zip(found, [*scores, *boxes], strict=True):
            apart = (torch.from_numpy(got) - want).abs().mean()
            # Integer kernels would give 0.2 or more.
            assert apart < 0.05 * want.std()


def test_integer_kernels_of_a_file_for_another_target(tmp_path):
    path = write(tmp_path, '.onnx', target='rknn')
    with pytest.warns(UserWarning, match=r'written for rknn: .*--target x86'):
        open_runtime(path, integer_kernels=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        open_runtime(path)


@pytest.mark.parametrize('target', ['x87', 3, ['x86']])
def test_an_unknown_target(target, tmp_path):
    path = write(tmp_path, '.onnx', target=target)
    with pytest.raises(ValueError, match=r'target is .* expected None or one'):
        open_runtime(path)

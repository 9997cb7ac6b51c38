import pytest

from mmgor.deploy.description.metadata_reader import read_metadata
from mmgor.deploy.description.ncnn import describe
from tests.support.ncnn import write_ncnn_files

LAYERS = '7767517\n1 1\nInput input0 0 1 images 0=24 1=16 2=3\n'


@pytest.fixture
def path(tmp_path):
    return write_ncnn_files(LAYERS, b'weights', tmp_path / 'file.param')


def test_metadata_follows_the_layers(path):
    assert read_metadata(path)['outputs'] == ['output_0']
    assert path.read_text().startswith(LAYERS)


def test_a_changed_layer_is_refused(path):
    path.write_text(path.read_text().replace('0=24', '0=25'))
    with pytest.raises(ValueError, match=r'file\.param has changed since'):
        read_metadata(path)


@pytest.mark.parametrize('content', [b'weightz', b'', None])
def test_other_weights_are_refused(path, content):
    weights = path.with_suffix('.bin')
    if content is None:
        weights.unlink()
    else:
        weights.write_bytes(content)
    with pytest.raises(ValueError, match=r'file\.bin is not the file that'):
        read_metadata(path)


@pytest.mark.parametrize('text', [LAYERS, '', '\n\n\n', 'x'])
def test_files_of_other_programs_have_no_metadata(path, text):
    path.write_text(text)
    with pytest.raises(ValueError, match='no mmgor metadata'):
        read_metadata(path)


def test_the_last_line_has_the_checksum_of_all_before():
    text = describe(LAYERS, b'', '{}')
    assert text.splitlines()[3:5] == [
        'mmgor {}',
        # SHA-256 of nothing.
        'mmgor_bin_sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca4'
        '95991b7852b855',
    ]

"""A folder's images are looked at before anything is written."""

import pytest

from mmgor.datasets.data_folder import read_data_folder
from tests.support.experiments import write_data


def test_an_image_that_is_cut_off_is_named(tmp_path):
    root = write_data(tmp_path / 'cells')
    assert read_data_folder(root).classes == ('b', 'a')
    image = root / 'images' / 'x'
    for content, fault in ((b'', 'is an empty file'), (b'\xff\xd8', 'is cut')):
        image.write_bytes(content)
        with pytest.raises(ValueError, match=f'images/x {fault}.*Copy it'):
            read_data_folder(root)

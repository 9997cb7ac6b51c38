"""A folder's images are looked at before anything is written."""

import json

import pytest

from mmgor.datasets.data_folder import read_data_folder


def test_an_image_that_is_cut_off_is_named(tmp_path):
    image = tmp_path / 'images' / 'x'
    image.parent.mkdir()
    content = dict(
        images=[dict(id=1, file_name='x', width=32, height=48)],
        annotations=[dict(id=1)],
        categories=[dict(id=1, name='cell')],
    )
    for split in ('train', 'eval'):
        (tmp_path / f'{split}.json').write_text(json.dumps(content))
    image.write_bytes(b'of another format')
    assert read_data_folder(tmp_path).classes == ('cell',)
    for text, fault in ((b'', 'is an empty file'), (b'\xff\xd8', 'is cut')):
        image.write_bytes(text)
        with pytest.raises(ValueError, match=f'images/x {fault}.*Copy it'):
            read_data_folder(tmp_path)

"""Faults of image files are found before a training meets them."""

import cv2
import numpy as np
import pytest
from PIL import Image

from mmgor.doctor import images
from mmgor.doctor.findings import ERROR, OK, WARNING
from mmgor.doctor.images import image_findings, in_colour

ENTRY = dict(id=1, file_name='a.png', width=64, height=48)
PIXELS = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


@pytest.fixture
def good(tmp_path):
    cv2.imwrite(str(tmp_path / 'good.png'), PIXELS)
    return tmp_path / 'good.png'


def found(*paths):
    files = [str(path) for path in paths]
    content = dict(images=[ENTRY] * len(files))
    return [(f.status, f.found) for f in image_findings('f', files, content)]


def test_good_and_missing_images(good, tmp_path):
    complete = (
        OK,
        '1 image files are complete and have their size; 1 of them were '
        'decoded',
    )
    assert found(good) == [complete]
    missing, other = found(good, tmp_path / 'gone.png')
    assert missing[0] == ERROR
    assert missing[1].startswith('1 of 2 image files are missing')
    assert other == complete


def test_a_turned_image(good, tmp_path):
    turned = tmp_path / 'turned.png'
    cv2.imwrite(str(turned), PIXELS.transpose(1, 0, 2))
    ((status, text),) = found(good, turned)
    assert status == ERROR
    assert '(48, 64) pixels wide and high, expected (64, 48)' in text


def test_every_file_is_read_and_some_are_decoded(good, tmp_path, monkeypatch):
    monkeypatch.setattr(images, 'DECODED', 1)
    cut = tmp_path / 'cut.png'
    cut.write_bytes(good.read_bytes()[:2000])
    damaged = tmp_path / 'damaged.png'
    damaged.write_bytes(good.read_bytes()[:2000] + good.read_bytes()[-12:])
    text = tmp_path / 'text.png'
    text.write_text('no image')
    many = [good] * 3 + [cut] * 4 + [damaged]
    ((status, shown),) = found(*many)
    assert status == ERROR
    assert shown.startswith(f'4 of 8 image files: {cut} is cut off')
    assert shown.endswith('and 1 more')
    ((status, shown),) = found(text, good)
    assert (status, shown.startswith('1 of 2')) == (ERROR, True)
    assert f'{text} does not open as an image' in shown
    # Its ends are sound. Of what is read, the first is decoded.
    ((status, shown),) = found(damaged, good)
    assert (status, 'does not open' in shown) == (ERROR, True)


def test_other_formats_are_looked_at_by_decoding_alone(
    good, tmp_path, monkeypatch
):
    monkeypatch.setattr(images, 'DECODED', 2)
    paths = [tmp_path / f'{i}.bmp' for i in range(4)]
    for path in paths:
        cv2.imwrite(str(path), PIXELS)
    calls = []
    stock = images.mmcv.imread
    monkeypatch.setattr(
        images.mmcv, 'imread', lambda x: calls.append(x) or stock(x)
    )
    complete = (
        '{} image files are complete and have their size; 2 of them were '
        'decoded; {} others were not looked at'
    )
    assert found(*paths) == [(OK, complete.format(2, 2))]
    assert calls == [str(paths[0]), str(paths[2])]
    assert found(*paths, good, good) == [(OK, complete.format(4, 2))]


def test_names_of_files_may_have_spaces(good, tmp_path):
    good.write_bytes(b'')
    where = 'train_dataloader my file.json'
    content = dict(images=[ENTRY])
    (finding,) = image_findings(where, [str(good)], content)
    assert finding.mend.endswith('make my file.json again')


def test_what_loading_loses(good, tmp_path):
    deep, alpha = tmp_path / 'deep.png', tmp_path / 'alpha.png'
    cv2.imwrite(str(deep), PIXELS.astype(np.uint16) * 257)
    cv2.imwrite(str(alpha), np.concatenate([PIXELS, PIXELS[..., :1]], 2))
    _, *warnings = found(good, deep, deep, alpha)
    assert warnings == [
        (
            WARNING,
            f'2 of 4 images lose the lower 8 of 16 bits, e.g. {deep}: mmdet '
            'loads three channels of 8 bits',
        ),
        (
            WARNING,
            f'1 of 4 images lose an alpha channel, e.g. {alpha}: mmdet loads '
            'three channels of 8 bits',
        ),
    ]
    assert (
        len(
            list(image_findings('f', [str(deep)], dict(images=[ENTRY]), False))
        )
        == 1
    )


def test_which_pipelines_load_colour():
    def pipeline(**settings):
        return dict(pipeline=[dict(type='LoadImageFromFile', **settings)])

    assert in_colour(pipeline())
    assert not in_colour(pipeline(color_type='unchanged'))
    assert not in_colour(dict(pipeline=[dict(type='LoadImageFromNDArray')]))


def test_the_size_is_that_after_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    turned = tmp_path / 'turned.jpg'
    Image.fromarray(PIXELS).save(turned, exif=exif)
    assert cv2.imread(str(turned)).shape == (64, 48, 3)
    ((status, text),) = found(tmp_path / 'turned.jpg')
    assert (status, '(48, 64)' in text) == (ERROR, True)

"""The ends of an image file tell whether it is complete, and its size."""

import cv2
import numpy as np
import pytest
from PIL import Image

from mmgor.datasets.image_files import ImageFile, look_at, spread

PIXELS = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def written(path, pixels=PIXELS):
    cv2.imwrite(str(path), pixels)
    return path.read_bytes()


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
@pytest.mark.parametrize('share', [0.001, 0.5, 0.999])
def test_a_file_that_is_cut_off(tmp_path, suffix, share):
    path = tmp_path / f'a.{suffix}'
    content = written(path)
    assert look_at(path) == ImageFile(size=(64, 48))
    path.write_bytes(content[: max(10, int(len(content) * share))])
    assert look_at(path).fault == 'is cut off: its end is missing'


def test_bytes_behind_the_end_do_no_harm(tmp_path):
    path = tmp_path / 'a.jpg'
    whole = written(path)
    for behind in (1000, 200_000):  # a phone's film is larger
        path.write_bytes(whole + bytes(behind))
        assert cv2.imread(str(path)).shape == PIXELS.shape
        assert look_at(path) == ImageFile(size=(64, 48))


def test_more_pixels_than_pillow_opens(tmp_path, monkeypatch):
    path = tmp_path / 'a.jpg'
    written(path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    assert look_at(path) == ImageFile()


def test_the_rotation_of_a_camera(tmp_path):
    sizes = []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        path = tmp_path / f'{orientation}.jpg'
        Image.fromarray(PIXELS).save(path, exif=exif)
        height, width, _ = cv2.imread(str(path)).shape
        assert look_at(path).size == (width, height)
        sizes.append(width)
    assert sizes == [64] * 4 + [48] * 4


def test_what_is_more_than_eight_bits_and_three_channels(tmp_path):
    path = tmp_path / 'a.png'
    alpha = np.concatenate([PIXELS, PIXELS[..., :1]], 2)
    for pixels, lost in (
        (PIXELS, ''),
        (PIXELS[..., 0], ''),
        (alpha, 'an alpha channel'),
        (PIXELS.astype(np.uint16), 'the lower 8 of 16 bits'),
        (
            alpha.astype(np.uint16),
            'the lower 8 of 16 bits and an alpha channel',
        ),
    ):
        written(path, pixels)
        assert look_at(path).lost == lost


def test_other_contents(tmp_path):
    path = tmp_path / 'a.jpg'
    path.write_bytes(b'')
    assert look_at(path).fault == 'is an empty file'
    path.write_text('no image')  # it may be a format that is not known here
    assert look_at(path) == ImageFile()
    path.write_bytes(b'\xff\xd8' + bytes(90) + b'\xff\xd9')
    assert look_at(path).fault.startswith('has a damaged header')


def test_a_spread_sample():
    assert spread(range(10), 3) == [0, 3, 6]
    assert spread(range(2), 3) == [0, 1]
    assert spread([], 3) == []

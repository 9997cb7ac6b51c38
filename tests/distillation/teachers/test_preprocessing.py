"""The student's batch, re-normalised for a teacher, against mmdet's code."""

import numpy as np
import pytest
import torch
from mmdet.models.data_preprocessors import (
    DetDataPreprocessor,
    MultiBranchDataPreprocessor,
)
from mmdet.structures import DetDataSample
from mmengine.model import BaseDataPreprocessor

from mmgor.distillation import to_teacher_inputs
from mmgor.distillation.teachers.preprocessing import noise_input

IMAGENET = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    pad_size_divisor=32,
)
YOLOX = dict(pad_size_divisor=32, pad_value=114)
CAFFE = dict(
    mean=[103.53, 116.28, 123.675],
    std=[1.0, 1.0, 1.0],
    bgr_to_rgb=False,
    pad_size_divisor=64,
)


def images():
    rng = np.random.default_rng(0)
    shapes = [(40, 64), (64, 50)]
    arrays = [
        torch.from_numpy(rng.integers(0, 256, (3, *s), dtype=np.uint8))
        for s in shapes
    ]
    samples = [DetDataSample(metainfo=dict(img_shape=s)) for s in shapes]
    return dict(inputs=arrays, data_samples=samples)


@pytest.mark.parametrize('student', [IMAGENET, YOLOX])
@pytest.mark.parametrize('teacher', [IMAGENET, YOLOX, CAFFE])
def test_equals_the_teachers_own_preprocessing(student, teacher):
    student_pp = DetDataPreprocessor(**student)
    teacher_pp = DetDataPreprocessor(**teacher)
    want = teacher_pp(images())['inputs']
    seen = student_pp(images())
    before = seen['inputs'].clone()
    got = to_teacher_inputs(
        seen['inputs'], student_pp, teacher_pp, seen['data_samples']
    )
    assert torch.equal(seen['inputs'], before)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_the_batch_grows_to_the_teachers_divisor():
    small = dict(IMAGENET, pad_size_divisor=16)
    large = dict(YOLOX, pad_size_divisor=48)
    student_pp = DetDataPreprocessor(**small)
    teacher_pp = DetDataPreprocessor(**large)
    want = teacher_pp(images())['inputs']
    seen = student_pp(images())
    assert (seen['inputs'].shape[-1], want.shape[-1]) == (64, 96)
    got = to_teacher_inputs(
        seen['inputs'], student_pp, teacher_pp, seen['data_samples']
    )
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_the_batch_grows_even_if_only_the_divisor_differs():
    student_pp = DetDataPreprocessor(**IMAGENET)
    teacher_pp = DetDataPreprocessor(**dict(IMAGENET, pad_size_divisor=48))
    want = teacher_pp(images())['inputs']
    seen = student_pp(images())
    got = to_teacher_inputs(
        seen['inputs'], student_pp, teacher_pp, seen['data_samples']
    )
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_same_preprocessing_passes_the_batch_through():
    pp = DetDataPreprocessor(**IMAGENET)
    seen = pp(images())
    other = DetDataPreprocessor(**IMAGENET)
    got = to_teacher_inputs(seen['inputs'], pp, other, seen['data_samples'])
    assert got is seen['inputs']


def test_the_preprocessor_inside_a_multi_branch_one_is_used():
    inside = dict(type='DetDataPreprocessor', **CAFFE)
    nested = MultiBranchDataPreprocessor(inside)
    want = DetDataPreprocessor(**CAFFE)(images())['inputs']
    student_pp = DetDataPreprocessor(**IMAGENET)
    seen = student_pp(images())
    got = to_teacher_inputs(
        seen['inputs'], student_pp, nested, seen['data_samples']
    )
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_a_preprocessor_that_does_not_normalise_is_an_error():
    known, unknown = DetDataPreprocessor(**IMAGENET), BaseDataPreprocessor()
    x = torch.zeros(1, 3, 32, 32)
    for owner, pair in (
        ('student', (unknown, known)),
        ('teacher', (known, unknown)),
    ):
        with pytest.raises(ValueError, match=f'{owner} is a BaseDataPreproc'):
            to_teacher_inputs(x, *pair, [])


GREY = dict(mean=[120.0], std=[60.0], pad_size_divisor=32)
PLAIN = dict(pad_size_divisor=16, pad_value=9)


def images_with(channels):
    made = images()
    made['inputs'] = [x[:1].repeat(channels, 1, 1) for x in made['inputs']]
    return made


@pytest.mark.parametrize('channels', [1, 2, 4])
@pytest.mark.parametrize('teacher', [GREY, PLAIN, dict(GREY, mean=[9.0])])
@pytest.mark.parametrize('student', [GREY, PLAIN])
def test_other_channels_equal_the_teachers_preprocessing(
    student, teacher, channels
):
    student_pp = DetDataPreprocessor(**student)
    teacher_pp = DetDataPreprocessor(**dict(teacher, pad_size_divisor=48))
    want = teacher_pp(images_with(channels))['inputs']
    seen = student_pp(images_with(channels))
    got = to_teacher_inputs(
        seen['inputs'], student_pp, teacher_pp, seen['data_samples'], channels
    )
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_a_teacher_with_another_number_of_channels():
    grey, colour = DetDataPreprocessor(**GREY), DetDataPreprocessor(**IMAGENET)
    seen = grey(images_with(1))
    message = r'images have 1 channel\(s\), the teacher takes 3 .*color_type'
    with pytest.raises(ValueError, match=message):
        to_teacher_inputs(seen['inputs'], grey, colour, seen['data_samples'])
    # A teacher without a mean: the number comes from its first layer.
    plain = DetDataPreprocessor(**PLAIN)
    with pytest.raises(ValueError, match=message):
        to_teacher_inputs(
            seen['inputs'], grey, plain, seen['data_samples'], channels=3
        )


def test_only_three_channels_have_an_order():
    grey = DetDataPreprocessor(**GREY)
    flipped = DetDataPreprocessor(**dict(GREY, bgr_to_rgb=True))
    seen = grey(images_with(4))
    for pair in ((grey, flipped), (flipped, grey)):
        with pytest.raises(ValueError, match='images of 3 channels then, got'):
            to_teacher_inputs(seen['inputs'], *pair, seen['data_samples'])


def test_noise_is_an_image_as_the_detector_gets_it():
    pp = DetDataPreprocessor(mean=[100.0, 120.0, 140.0], std=[50.0] * 3)
    noise = noise_input(pp, 3, 64)
    pixels = noise * 50 + torch.tensor([100.0, 120.0, 140.0]).view(3, 1, 1)
    assert noise.shape == (1, 3, 64, 64)
    assert 0 <= pixels.min() < 60 and 195 < pixels.max() <= 255
    assert torch.equal(noise, noise_input(pp, 3, 64))
    plain = noise_input(DetDataPreprocessor(), 1, 64)
    assert plain.shape == (1, 1, 64, 64) and plain.max() > 195

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


def pictures():
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
    want = teacher_pp(pictures())['inputs']
    seen = student_pp(pictures())
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
    want = teacher_pp(pictures())['inputs']
    seen = student_pp(pictures())
    assert (seen['inputs'].shape[-1], want.shape[-1]) == (64, 96)
    got = to_teacher_inputs(
        seen['inputs'], student_pp, teacher_pp, seen['data_samples']
    )
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_a_divisor_alone_also_makes_it_grow():
    student_pp = DetDataPreprocessor(**IMAGENET)
    teacher_pp = DetDataPreprocessor(**dict(IMAGENET, pad_size_divisor=48))
    want = teacher_pp(pictures())['inputs']
    seen = student_pp(pictures())
    got = to_teacher_inputs(
        seen['inputs'], student_pp, teacher_pp, seen['data_samples']
    )
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_same_preprocessing_passes_the_batch_through():
    pp = DetDataPreprocessor(**IMAGENET)
    seen = pp(pictures())
    other = DetDataPreprocessor(**IMAGENET)
    got = to_teacher_inputs(seen['inputs'], pp, other, seen['data_samples'])
    assert got is seen['inputs']


def test_the_preprocessor_inside_a_multi_branch_one_counts():
    inside = dict(type='DetDataPreprocessor', **CAFFE)
    nested = MultiBranchDataPreprocessor(inside)
    want = DetDataPreprocessor(**CAFFE)(pictures())['inputs']
    student_pp = DetDataPreprocessor(**IMAGENET)
    seen = student_pp(pictures())
    got = to_teacher_inputs(
        seen['inputs'], student_pp, nested, seen['data_samples']
    )
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)


def test_a_preprocessor_that_tells_nothing_is_an_error():
    known, unknown = DetDataPreprocessor(**IMAGENET), BaseDataPreprocessor()
    x = torch.zeros(1, 3, 32, 32)
    for owner, pair in (
        ('student', (unknown, known)),
        ('teacher', (known, unknown)),
    ):
        with pytest.raises(ValueError, match=f'{owner} is a BaseDataPreproc'):
            to_teacher_inputs(x, *pair, [])

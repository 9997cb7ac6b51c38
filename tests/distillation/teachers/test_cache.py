"""What teachers return for an image, kept on disk."""

import copy

import pytest
import torch
from mmengine.structures import InstanceData

from mmgor.distillation.teachers import cache
from mmgor.distillation.teachers.cache import OutputCache
from tests.support.kd import CPU, one_teacher, outputs_of
from tests.support.models import make_batch

TAPS = ('neck', 'bbox_head')


def built(spec, folder, **settings):
    settings = dict(folder=str(folder), **settings)
    teachers = one_teacher(**spec, cache=settings)
    teachers.build(CPU)
    return teachers['big']


def outputs(teacher, *taps, batch=None):
    found = outputs_of(teacher, *taps, batch=batch)
    return [found[tap].output for tap in taps]


def never(*_, **__):
    raise AssertionError('the teacher ran')


def files(folder):
    return sorted(folder.rglob('*.pt'))


@pytest.mark.parametrize('taps', [TAPS, ('detections',)])
def test_the_second_time_the_teacher_does_not_run(
    teacher_spec, tmp_path, monkeypatch, taps
):
    first = outputs(built(teacher_spec, tmp_path), *taps)
    assert len(files(tmp_path)) == 2  # one per image
    teacher = built(teacher_spec, tmp_path)
    monkeypatch.setattr(teacher, '_outputs', never)
    again = outputs(teacher, *taps)
    plain = one_teacher(**teacher_spec)
    plain.build(CPU)
    wanted = outputs(plain['big'], *taps)
    if taps == ('detections',):
        for a, b in zip(again[0], wanted[0], strict=True):
            assert isinstance(a, InstanceData)
            for key in ('bboxes', 'scores', 'labels'):
                assert torch.equal(getattr(a, key), getattr(b, key))
        return
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    torch.testing.assert_close(
        [list(again[0]), again[1]], [list(wanted[0]), wanted[1]]
    )


def test_only_unknown_images_run(teacher_spec, tmp_path, monkeypatch):
    teacher = built(teacher_spec, tmp_path)
    batch = make_batch()
    (first,) = outputs(teacher, 'neck', batch=batch)
    batch['inputs'][1] += 0.5  # as another augmentation does
    sizes = []
    run = teacher._outputs

    def counted(inputs, samples, names):
        sizes.append((len(inputs), len(samples)))
        return run(inputs, samples, names)

    monkeypatch.setattr(teacher, '_outputs', counted)
    (second,) = outputs(teacher, 'neck', batch=batch)
    assert sizes == [(1, 1)]
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a[0], b[0]) and not torch.equal(a[1], b[1])


def test_another_teacher_finds_nothing(teacher_spec, tmp_path, monkeypatch):
    """Of the same config, with other weights or another precision."""
    outputs(built(teacher_spec, tmp_path), 'neck')
    same = built(teacher_spec, tmp_path)
    monkeypatch.setattr(same, '_outputs', never)
    outputs(same, 'neck')
    file = torch.load(teacher_spec['checkpoint'])
    weights = file.get('state_dict', file)
    weights['bbox_head.retina_cls.bias'] += 1
    torch.save(file, tmp_path / 'other.pth')
    config = copy.deepcopy(teacher_spec['config'])
    config.get('model', config)['test_cfg']['max_per_img'] = 3
    others = (
        dict(teacher_spec, config=config),
        dict(teacher_spec, checkpoint=str(tmp_path / 'other.pth')),
        dict(teacher_spec, dtype='bfloat16'),
    )
    for spec in others:
        other = built(spec, tmp_path)
        monkeypatch.setattr(other, '_outputs', never)
        with pytest.raises(AssertionError, match='the teacher ran'):
            outputs(other, 'neck')


@pytest.mark.parametrize('damage', ['flip', 'cut', 'empty'])
def test_damaged_entries_count_as_missing(teacher_spec, tmp_path, damage):
    teacher = built(teacher_spec, tmp_path)
    (wanted,) = outputs(teacher, 'neck')
    path = files(tmp_path)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    cut = dict(flip=None, cut=-7, empty=0)[damage]
    path.write_bytes(content[:cut])
    (got,) = outputs(teacher, 'neck')
    torch.testing.assert_close(list(got), list(wanted))
    assert len(path.read_bytes()) == len(content)  # written anew


def test_outputs_that_are_not_finite_are_not_kept(teacher_spec, tmp_path):
    teacher = built(teacher_spec, tmp_path)
    batch = make_batch()
    batch['inputs'][1, 0, 5, 5] = torch.nan
    (broken,) = outputs(teacher, 'neck', batch=batch)
    assert not broken[0][1].isfinite().all()
    assert len(files(tmp_path)) == 1


def test_the_folder_stays_below_its_limit(teacher_spec, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(cache, 'print_log', lambda text, _: said.append(text))
    outputs(built(teacher_spec, tmp_path), 'neck')
    size = files(tmp_path)[0].stat().st_size
    limit = 2.5 * size / 2**30  # the third file goes beyond it
    teacher = built(teacher_spec, tmp_path, max_gib=limit)
    for shift in (1, 2, 3):
        batch = make_batch()
        batch['inputs'] += shift
        outputs(teacher, 'neck', batch=batch)
    assert len(files(tmp_path)) == 3
    assert len(said) == 1 and 'is full' in said[0]


def test_a_full_disk_stops_nothing(teacher_spec, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(cache, 'print_log', lambda text, _: said.append(text))

    def full(path):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(cache, 'writing', full)
    teacher = built(teacher_spec, tmp_path)
    for _ in range(2):
        outputs(teacher, 'neck')
    assert files(tmp_path) == []
    assert len(said) == 1 and 'No space left' in said[0]


def test_a_folder_that_cannot_be_made(teacher_spec, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(OSError, match='file'):
        built(teacher_spec, tmp_path / 'file')


def test_files_that_are_being_written_do_not_count(tmp_path):
    (tmp_path / '.a.1.tmp.pt').symlink_to('gone')  # renamed since
    (tmp_path / 'b.pt').write_bytes(b'12345')
    assert cache._size(tmp_path) == 5


def test_taps_whose_first_axis_may_be_another(teacher_spec, tmp_path):
    one = OutputCache('big', tmp_path)
    batch = make_batch()
    with pytest.raises(ValueError, match=r"got the tap 'decoder'"):
        one.through(batch['inputs'], batch['data_samples'], ['decoder'], never)


def test_the_log_says_how_many_were_known(teacher_spec, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(cache, 'print_log', lambda text, _: said.append(text))
    monkeypatch.setattr(cache, '_REPORT', 4)
    teacher = built(teacher_spec, tmp_path)
    for _ in range(3):
        outputs(teacher, 'neck')
    assert len(said) == 1 and '50% of 4 images' in said[0]


def test_outputs_that_cannot_be_split():
    one = OutputCache('big', 'x')
    batch = make_batch()
    arguments = batch['inputs'], batch['data_samples'], ['neck']
    with pytest.raises(ValueError, match=r"'neck'.*shape \(3, 2\).*2 images"):
        one.through(*arguments, lambda *_: dict(neck=torch.ones(3, 2)))
    with pytest.raises(ValueError, match='returns a set'):
        one.through(*arguments, lambda *_: dict(neck={1}))


@pytest.mark.parametrize(
    'settings, message',
    [
        ('x', r'teachers\.big\.cache.*expected e\.g\. dict\(folder='),
        (dict(), r'teachers\.big\.cache\.folder.*string such as'),
        (dict(folder='x', size=3), r"unknown key.*'size'"),
        (dict(folder='x', max_gib=0), r'max_gib.*0'),
    ],
)
def test_wrong_settings(teacher_spec, settings, message):
    with pytest.raises(ValueError, match=message):
        one_teacher(**teacher_spec, cache=settings)

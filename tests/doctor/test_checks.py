"""A whole config is examined; what is broken in it is found."""

import shutil
from collections import namedtuple

import pytest
import torch
from mmengine.config import Config

from mmgor.cli.main import main
from mmgor.datasets import SceneSpec, generate_scenes
from mmgor.datasets.shapes import CLASSES
from mmgor.doctor import ERROR, OK, WARNING, checks
from mmgor.doctor.checks import examine
from mmgor.doctor.disk import disk_finding
from mmgor.doctor.model import build_model
from mmgor.registry import MODELS
from tests.support.models import retinanet_cfg
from tests.support.training import scene_teacher, training_config


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('doctor')


@pytest.fixture(scope='module')
def good(folder):
    """A config without a fault, which a test may change."""
    # Enough for every class to have boxes.
    spec = SceneSpec(num_train=24, num_eval=24, size=64, max_objects=3)
    root = generate_scenes(folder / 'data', spec)
    teacher = scene_teacher(folder)
    # The file tells the teacher's classes.
    content = dict(
        state_dict=torch.load(teacher['checkpoint']),
        meta=dict(dataset_meta=dict(classes=CLASSES)),
    )
    torch.save(content, teacher['checkpoint'])
    cfg = training_config(root, folder / 'work', teacher)
    weights = folder / 'float.pth'
    torch.save(MODELS.build(_student(cfg)).state_dict(), weights)
    cfg.load_from = str(weights)
    return cfg


def _student(cfg):
    """The student's own layers, in float."""
    model = cfg.model
    return retinanet_cfg(
        channels=model.backbone.base_channels,
        fpn=model.neck.out_channels,
        classes=model.bbox_head.num_classes,
    )


@pytest.fixture
def examined(good, tmp_path, monkeypatch):
    """Examines a changed copy of the config."""
    for name in ('environment_findings', 'operation_findings'):
        monkeypatch.setattr(checks, name, list)

    def run(**changes):
        cfg = Config(good.to_dict())
        cfg.merge_from_dict(changes)
        path = tmp_path / 'student.py'
        cfg.dump(path)
        return list(examine(str(path)))

    return run


def faults(findings):
    return {f.what: f for f in findings if f.status != OK}


def test_a_good_config(examined):
    findings = examined()
    shown = '\n'.join(map(str, findings))
    assert faults(findings) == {}, shown
    names = [finding.what for finding in findings]
    assert names[:4] == ['config', 'model', 'load_from', 'teacher big']
    assert 'has 100% of' in findings[2].found
    assert 'train_dataloader train.json' in names
    assert names[-1] == 'disk'


def test_a_checkpoint_of_another_model(examined, good, folder):
    teacher = str(folder / 'teacher.pth')
    found = faults(examined(load_from=teacher))['load_from']
    assert found.status in (WARNING, ERROR)
    assert 'of this architecture' in found.mend
    found = faults(examined(load_from='gone.pth'))['load_from']
    assert found.status == ERROR
    assert 'checkpoint not found: gone.pth' in found.found


def test_without_weights_to_start_from(examined):
    found = faults(examined(load_from=None))['load_from']
    assert (found.status, 'float student' in found.mend) == (WARNING, True)


def test_a_url_is_not_downloaded(examined):
    url = 'https://example.org/a.pth'
    findings = examined(
        **{'load_from': url, 'model.teachers.big.checkpoint': url}
    )
    assert faults(findings) == {}
    assert sum('is a URL' in finding.found for finding in findings) == 2


def test_a_teacher_that_is_not_there(examined):
    findings = examined(**{'model.teachers.big.checkpoint': 'no.pth'})
    found = faults(findings)['teacher big']
    assert found.status == ERROR
    assert "checkpoint of teacher 'big' not found: no.pth" in found.found


def test_weights_in_an_init_cfg(examined, folder):
    init = dict(type='Pretrained', checkpoint='no.pth')
    findings = examined(**{'model.neck.init_cfg': init})
    assert faults(findings)['model.neck.init_cfg'].status == ERROR
    findings = examined(**{'model.neck.init_cfg': [init]})
    assert faults(findings)['model.neck.init_cfg'].status == ERROR
    init = dict(
        type='Pretrained', checkpoint=str(folder / 'float.pth'), prefix='neck.'
    )
    findings = examined(**{'model.neck.init_cfg': init})
    (found,) = (f for f in findings if f.what == 'model.neck.init_cfg')
    assert (found.status, '100% of' in found.found) == (OK, True)


def test_a_model_that_does_not_build(examined):
    findings = examined(**{'model.backbone.depth': 19})
    found = faults(findings)
    assert found['model'].status == ERROR
    assert '19' in found['model'].found
    # The data are examined all the same.
    assert any(f.what.startswith('train_dataloader') for f in findings)


def test_a_hook_that_is_missing(examined):
    found = faults(examined(custom_hooks=[]))['custom_hooks']
    assert found.status == ERROR
    assert found.mend == "add dict(type='GoRWeightHook') to custom_hooks"


def test_data_that_is_not_there(examined):
    findings = examined(**{'train_dataloader.dataset.ann_file': 'no.json'})
    found = faults(findings)['train_dataloader']
    assert (found.status, 'no.json' in found.found) == (ERROR, True)


def test_a_config_that_is_not_there():
    *_, found = examine('no/such/config.py')
    assert (found.what, found.status) == ('config', ERROR)


def test_a_full_disk(good, monkeypatch, tmp_path):
    model = build_model(good)
    size = sum(
        v.numel() * v.element_size() for v in model.state_dict().values()
    )
    usage = namedtuple('usage', 'total used free')

    def status(free):
        monkeypatch.setattr(
            shutil, 'disk_usage', lambda place: usage(0, 0, free)
        )
        return disk_finding(good, model, tmp_path / 'not' / 'made').status

    # One epoch: one checkpoint and the one that replaces it, of 3 copies.
    assert status(6 * size - 1) == ERROR
    assert status(6 * size + 1) == OK
    good.train_cfg.max_epochs = 10
    try:
        assert status(6 * size + 1) == WARNING
    finally:
        good.train_cfg.max_epochs = 1


def test_the_command_tells_by_its_status(monkeypatch, capsys):
    for name in ('environment_findings', 'operation_findings'):
        monkeypatch.setattr(checks, name, list)
    main(['doctor'])
    assert '0 checks: 0 ok, 0 warnings, 0 errors' in capsys.readouterr().out
    with pytest.raises(SystemExit) as error:
        main(['doctor', 'no.py'])
    assert error.value.code == 1
    assert '1 error' in capsys.readouterr().out

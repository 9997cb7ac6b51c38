"""Packages, extras and operators."""

import torch

from mmgor.doctor import operations
from mmgor.doctor.environment import environment_findings, extra_findings
from mmgor.doctor.findings import ERROR, OK, WARNING
from mmgor.doctor.operations import operation_findings

REQUIREMENTS = [
    'numpy',
    'onnx>=1.17; extra == "deploy"',
    'openvino; extra == "deploy"',
    'ncnn; extra == "ncnn"',
    'ai-edge-litert>=2.3; extra == "litert"',
]


def test_this_environment_has_what_mmgor_needs():
    findings = {finding.what: finding for finding in environment_findings()}
    assert {'Python', 'torch', 'mmengine', 'mmcv', 'mmdet'} <= set(findings)
    assert findings['torch'].found.startswith(torch.__version__.split('+')[0])
    assert not [f for f in findings.values() if f.status == ERROR]


def test_extras():
    have = {'onnx': '1.17.0', 'openvino': '2026.4', 'ai-edge-litert': '2.1'}
    found = list(extra_findings(REQUIREMENTS, lambda n: have.get(n[0])))
    deploy, litert, ncnn = found
    assert (deploy.status, deploy.found) == (
        OK,
        'onnx 1.17.0, openvino 2026.4',
    )
    assert litert.status == WARNING
    assert litert.found == 'ai-edge-litert 2.1 (needs >=2.3)'
    assert litert.mend == 'pip install "mmgor[litert]"'
    assert ncnn.found == ('not installed: ncnn; pip install "mmgor[ncnn]"')


def test_operators_run_here():
    findings = list(operation_findings())
    assert [f.what for f in findings[:3]] == [
        'GPU',
        'mmcv.ops.nms on cpu',
        'convolution on cpu',
    ]
    assert {f.status for f in findings[:3]} == {OK}


def test_a_wrong_result_is_an_error(monkeypatch):
    def keeps_all(boxes, scores, iou_threshold):
        return boxes, torch.arange(len(boxes))

    monkeypatch.setattr(operations, 'nms', keeps_all)
    (found,) = operations._nms(torch.device('cpu'))
    assert found.status == ERROR
    assert 'expected [0.0, 2.0], got [0.0, 1.0, 2.0]' in found.found
    assert found.mend.startswith('MMCV_WITH_OPS=1 pip install ')
    assert 'mmcv==2.' in found.mend


def test_without_a_compiler_training_still_runs(monkeypatch):
    def no_compiler(*args, **kwargs):
        raise RuntimeError('No working C++ compiler found\nmore')

    monkeypatch.setattr(torch, 'compile', no_compiler)
    found = list(operation_findings())[3]
    assert (found.what, found.status) == ('torch.compile on cpu', WARNING)
    assert 'No working C++ compiler found)' in found.found
    assert 'apt-get install g++' in found.mend


def test_a_gpu_that_torch_does_not_see(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(operations.shutil, 'which', lambda name: '/bin/x')
    found = next(operation_findings())
    assert (found.what, found.status) == ('GPU', WARNING)

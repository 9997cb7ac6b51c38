"""When a runtime computes in integers without being told to."""

import pytest

from mmgor.deploy.runtime import integer_kernels

FILE = 'student.onnx'


def metadata(tensors, w_bits=8):
    layers = [dict(name='conv', w_bits=w_bits, a_bits=8)]
    return dict(tensors=tensors, quantization=layers)


@pytest.fixture
def cpu(monkeypatch):
    def choose(machine, vnni):
        monkeypatch.setattr(
            integer_kernels.platform, 'machine', lambda: machine
        )
        monkeypatch.setattr(integer_kernels, 'has_vnni', lambda: vnni)

    return choose


@pytest.mark.parametrize(
    'machine, vnni, w_bits, expected',
    [
        ('x86_64', True, 8, True),
        ('x86_64', False, 8, False),
        ('x86_64', False, 7, True),
        ('aarch64', False, 8, True),
    ],
)
def test_where_every_tensor_is_rounded(cpu, machine, vnni, w_bits, expected):
    cpu(machine, vnni)
    found = integer_kernels.integer_by_default(metadata('all', w_bits), FILE)
    assert found is expected


def test_not_where_sums_stay_in_float(cpu):
    cpu('x86_64', True)
    assert not integer_kernels.integer_by_default(metadata('inputs'), FILE)


def test_the_reason_is_said(cpu, monkeypatch):
    said = []
    monkeypatch.setattr(
        integer_kernels, 'print_log', lambda text, **_: said.append(text)
    )
    cpu('x86_64', False)
    integer_kernels.integer_by_default(metadata('all'), FILE)
    assert 'student.onnx is computed in float32' in said[0]
    assert 'w_bits=7' in said[0]

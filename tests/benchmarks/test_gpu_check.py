"""benchmarks/gpu_check.py: each step is in the file, whatever it does."""

import json
import sys

import gpu_check
import pytest


def test_steps_that_fail_or_hang_do_not_stop_the_others(
    tmp_path, monkeypatch, capsys
):
    out = tmp_path / 'gpu.json'
    numbers = (
        f'open({str(tmp_path)!r} + "/gpu_files/good.json", "w").write("[1]")'
    )
    monkeypatch.setattr(
        gpu_check,
        'steps',
        lambda args, folder: dict(
            bad=['-c', 'print("why"); raise SystemExit(3)'],
            good=['-c', numbers],
            hangs=['-c', 'import os; os.system("sleep 60")'],
        ),
    )
    monkeypatch.setattr(gpu_check, 'LIMIT', 3)
    old = tmp_path / 'gpu_files' / 'bad.json'
    old.parent.mkdir()
    old.write_text('"of an earlier call"')
    argv = ['gpu_check', '--device', 'cpu', '--out', str(out)]
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(SystemExit, match='True'):
        gpu_check.main()
    found = json.loads(out.read_text())['steps']
    assert found['bad']['status'] == 3
    assert found['bad']['printed'] == ['why']
    assert 'result' not in found['bad']
    assert found['good']['status'] == 0 and found['good']['result'] == [1]
    assert found['hangs']['status'] is None
    assert "not passed: ['bad', 'hangs']" in capsys.readouterr().out


def test_the_commands_exist(tmp_path):
    args = gpu_check.argparse.Namespace(device='cpu', size=[64, 64], rounds=2)
    for words in gpu_check.steps(args, tmp_path).values():
        if words[0] != '-m':
            assert (gpu_check.ROOT / words[0]).is_file()


def test_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr(sys, 'argv', ['gpu_check'])
    with pytest.raises(SystemExit):
        gpu_check.main()
    assert 'expected a GPU that torch can use' in capsys.readouterr().err

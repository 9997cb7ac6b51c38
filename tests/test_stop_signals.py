"""SIGTERM and Ctrl-C are requests; workers end by their parent's alone."""

import os
import signal
import time

import pytest

from mmgor.stop_signals import StopRequest, stop_requests

NUMBERS = signal.SIGINT, signal.SIGTERM


@pytest.fixture(autouse=True)
def handlers_as_before():
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        assert signal.getsignal(number) is handler


def test_a_signal_is_a_request(capfd):
    with stop_requests() as request:
        assert not request.number
        signal.raise_signal(signal.SIGTERM)
        assert request.number == signal.SIGTERM
        # Ctrl-C now acts at once.
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert 'SIGTERM: training stops after this' in capfd.readouterr().err


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            signal.raise_signal(signal.SIGINT)
            assert not request.number
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_is_ignored_stays_so_after_another_signal():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_requests() as request:
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            assert request.number == signal.SIGTERM
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize('closed', [True, False])
def test_nobody_reads_the_line(closed):
    """As in `train.py 2>&1 | tee log.txt`, where Ctrl-C ends tee, too."""
    stderr, (reading, writing) = os.dup(2), os.pipe()
    try:
        os.dup2(writing, 2)
        os.close(reading)
        if closed:
            os.close(2)
        with stop_requests() as request:
            signal.raise_signal(signal.SIGINT)
        assert request.number == signal.SIGINT
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(writing)


def test_a_handler_of_a_library(monkeypatch):
    """Python reports it as None, and can't put it back."""
    stock = signal.signal
    before = {number: signal.getsignal(number) for number in NUMBERS}
    with monkeypatch.context() as patch:
        patch.setattr(signal, 'signal', lambda *new: stock(*new) and None)
        with stop_requests():
            pass
    found = [stock(number, before[number]) for number in NUMBERS]
    assert found == [signal.SIG_DFL] * 2


def test_a_copy_in_another_process_does_nothing(capfd):
    request = StopRequest()
    request._process += 1
    request(signal.SIGINT, None)
    assert not request.number
    assert not capfd.readouterr().err


def ended(pid):
    time.sleep(0.2)
    return os.waitpid(pid, os.WNOHANG)[0] == pid


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_without_sigwaitinfo_workers_end_by_anyone(monkeypatch):
    monkeypatch.delattr(signal, 'sigwaitinfo', raising=False)
    reading, writing = os.pipe()
    with stop_requests():
        worker = os.fork()
        if not worker:
            os.write(writing, b'begun')
            time.sleep(10)
            os._exit(1)
        os.read(reading, 5)
        os.kill(worker, signal.SIGTERM)
        status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
        assert status == -signal.SIGTERM
    os.close(reading)
    os.close(writing)


@pytest.mark.skipif(
    not hasattr(signal, 'sigwaitinfo'), reason='needs sigwaitinfo'
)
def test_workers_end_by_their_parent_alone():
    with stop_requests():
        worker = os.fork()
        if not worker:
            time.sleep(60)
            os._exit(1)
        other = os.fork()
        if not other:
            os.kill(worker, signal.SIGTERM)
            os._exit(0)
        os.waitpid(other, 0)
        assert not ended(worker)
        os.kill(worker, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == 0

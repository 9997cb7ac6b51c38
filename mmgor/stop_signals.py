"""SIGTERM and Ctrl-C become a request that a training answers in its time."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class StopRequest:
    """Whether a signal has asked this process to end.

    Attributes:
        number (int): The signal, 0 if none has come.
    """

    def __init__(self) -> None:
        self.number = 0
        self._process = os.getpid()

    def __call__(self, number: int, frame: Any) -> None:
        """Handle a signal."""
        # A terminal sends Ctrl-C to the workers of a data loader, too, which
        # have a copy of this. They go on with the iteration in flight.
        if os.getpid() != self._process:
            return
        self.number = number
        # From now on, Ctrl-C interrupts whatever the process does.
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        name = signal.Signals(number).name
        line = (
            f'\n{name}: training stops after this iteration, or after the '
            'evaluation if one is under way, and saves a checkpoint. Ctrl-C '
            'stops it at once.\n'
        )
        # print() and the log may be in the midst of a line. Ctrl-C has also
        # ended what reads stderr in `train.py 2>&1 | tee log.txt`.
        with suppress(OSError):
            os.write(2, line.encode())


class _Block:
    """The ``with`` block of :func:`stop_requests`, if one is entered."""

    entered = False
    watched = False


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Take SIGTERM and SIGINT as requests in the ``with`` block.

    It must be entered in the main thread, and before a data loader starts its
    workers. Those ignore a SIGTERM that is not their parent's, since job
    schedulers send it to all processes of a job. A signal that was ignored
    stays ignored, as under nohup. Where there is no ``sigwaitinfo`` (macOS),
    workers end at any SIGTERM.
    """
    request, before = StopRequest(), {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, request)
    if not _Block.watched and hasattr(os, 'register_at_fork'):
        os.register_at_fork(after_in_child=_obey_the_parent_only)
        _Block.watched = True
    _Block.entered = True
    try:
        yield request
    finally:
        _Block.entered = False
        for number, handler in before.items():
            # Python can't put the handler of a C library back, which is None.
            signal.signal(number, handler or signal.SIG_DFL)


def _obey_the_parent_only() -> None:
    """In a new process: end at the SIGTERM of the parent, at no other."""
    if not _Block.entered:
        return
    if not hasattr(signal, 'sigwaitinfo'):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(
        target=_wait_for_the_parent, args=[os.getppid()], daemon=True
    ).start()


def _wait_for_the_parent(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)

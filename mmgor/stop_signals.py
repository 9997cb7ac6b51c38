"""SIGTERM and Ctrl-C become a request that a training answers in its time."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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
        signal.signal(signal.SIGINT, signal.default_int_handler)
        name = signal.Signals(number).name
        line = (
            f'\n{name}: training stops after this iteration, or after the '
            'evaluation if one is under way, and saves a checkpoint. Ctrl-C '
            'stops it at once.\n'
        )
        # print() and the log may be in the midst of a line.
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
    stays ignored, as under nohup.
    """
    request, before = StopRequest(), {}
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, request)
    if not _Block.watched and hasattr(signal, 'sigwaitinfo'):
        os.register_at_fork(after_in_child=_obey_the_parent_only)
        _Block.watched = True
    _Block.entered = True
    try:
        yield request
    finally:
        _Block.entered = False
        for number, handler in before.items():
            signal.signal(number, handler)


def _obey_the_parent_only() -> None:
    """In a new process: end at the SIGTERM of the parent, at no other."""
    if not _Block.entered:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    threading.Thread(
        target=_wait_for_the_parent, args=[os.getppid()], daemon=True
    ).start()


def _wait_for_the_parent(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)

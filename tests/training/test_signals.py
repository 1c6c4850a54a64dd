"""Ctrl-C, SIGTERM and SIGHUP ask to stop; a second Ctrl-C insists."""

import signal
import threading

import pytest
import torch

from m2dx.training import signals
from m2dx.training.signals import StopRequests, StopVotes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_request(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequests() as requests:
        assert requests.received is None
        signal.raise_signal(number)
        assert requests.received is number
    assert signal.getsignal(number) is before


def test_nohup_holds() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequests() as requests:
            signal.raise_signal(signal.SIGHUP)
            assert requests.received is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_ctrl_c_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(signals.time, "monotonic", lambda: now)
    with StopRequests() as requests:
        signal.raise_signal(signal.SIGINT)
        now = 100.5
        signal.raise_signal(signal.SIGINT)  # the same keystroke, through torchrun
        signal.raise_signal(signal.SIGTERM)
        assert requests.received is signal.SIGTERM
        now = 102.0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_threads_cannot_catch_signals_but_may_train() -> None:
    before, entered = signal.getsignal(signal.SIGTERM), []

    def train() -> None:
        with StopRequests() as requests:
            entered.append(requests.received)

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert entered == [None] and signal.getsignal(signal.SIGTERM) is before


def test_a_vote_on_the_cpu_counts_at_once() -> None:
    votes = StopVotes()
    assert [votes.count(torch.tensor(vote)) for vote in (0.0, 0.5, 0.0)] == [False, True, False]


@pytest.mark.gpu
def test_a_vote_on_a_gpu_counts_a_step_later() -> None:
    votes = StopVotes()
    counted = [votes.count(torch.tensor(vote, device="cuda")) for vote in (0.0, 0.5, 0.0, 0.0)]
    assert counted == [False, False, True, False]

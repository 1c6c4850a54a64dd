"""Ctrl-C and SIGTERM ask to stop; a second Ctrl-C insists."""

import signal

import pytest

from m2dx.training import signals
from m2dx.training.signals import StopRequests


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequests() as requests:
        assert requests.received is None
        signal.raise_signal(number)
        assert requests.received is number
    assert signal.getsignal(number) is before


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

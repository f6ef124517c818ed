"""Several runs in one process, a batch each in turn: on a GPU the work of one fills the gaps of the others.

Only the run whose turn it is executes Python; each has a thread, a CUDA stream and its own state of the global random
generators, so it draws and computes what it would alone. Results are those of single runs, bit for bit on the CPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, TypeVar

import torch

from fer_repro.training.checkpoint import random_state, set_random_state
from fer_repro.training.progress import StopRequest, stop_requests

T = TypeVar("T")


class Turn:
    """One run's place in a round of ``count``. ``stop`` is shared: a stop request reaches every run."""

    def __init__(self, number: int, count: int, round_: _Round) -> None:
        self.number, self.count, self._round = number, count, round_

    @property
    def stop(self) -> StopRequest:
        return self._round.stop

    def yield_turn(self) -> None:
        """Let every other run compute one batch; comes back with the random generators as they were."""
        if self._round.alone():
            return
        state = random_state(self._round.device)
        self._round.next_turn(self.number)
        self._round.wait_for(self.number)
        set_random_state(state, self._round.device)


class _Round:
    """Whose turn it is among the runs that are not finished."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.device, self.stop = device, StopRequest()
        self._waiting = list(range(count))
        self._now = 0
        self._changed = threading.Condition()

    def alone(self) -> bool:
        with self._changed:
            return len(self._waiting) == 1

    def wait_for(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._now == number)

    def next_turn(self, number: int, leave: bool = False) -> None:
        with self._changed:
            place = self._waiting.index(number)
            after = self._waiting[place + 1 :] + self._waiting[:place]
            if leave:
                self._waiting.remove(number)
            self._now = after[0] if after else number
            self._changed.notify_all()


def interleave(works: list[Callable[[Turn], T]], device: str) -> list[Any]:
    """Do all ``works`` side by side, each called with its `Turn`; what each returned, or the exception it raised.

    A work that fails ends alone. Ctrl-C and SIGTERM become a stop request that every `Turn` shares.
    """
    place = torch.device(device)
    before = random_state(place)
    ended: list[Any] = [None] * len(works)
    round_ = _Round(len(works), place)

    def do(number: int) -> None:
        round_.wait_for(number)
        try:
            with torch.cuda.stream(torch.cuda.Stream(place)) if place.type == "cuda" else nullcontext():
                ended[number] = works[number](Turn(number, len(works), round_))
                if place.type == "cuda":
                    torch.cuda.current_stream(place).synchronize()
        except BaseException as error:  # noqa: BLE001 - handed to the caller, who decides; the others go on
            ended[number] = error
        finally:
            round_.next_turn(number, leave=True)

    threads = [threading.Thread(target=do, args=(number,), daemon=True) for number in range(len(works))]
    with stop_requests(round_.stop):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    set_random_state(before, place)
    return ended

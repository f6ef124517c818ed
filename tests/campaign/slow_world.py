"""``fer-repro`` in the world of `campaign_world`, with epochs of seconds; a campaign's children run in it too."""

from __future__ import annotations

import sys
import time

import campaign_world

from fer_repro.campaign import workers
from fer_repro.training import loop
from fer_repro.training.step import TrainStep

BATCH = 0.15  # seconds
step = TrainStep.__call__


def slowly(*arguments) -> None:
    time.sleep(BATCH)
    step(*arguments)


campaign_world.install(setattr)
TrainStep.__call__ = slowly
loop.SAVING_SHARE = 1.0  # a busy disk may not decide which epochs are saved
workers.COMMAND = (sys.executable, __file__)

if __name__ == "__main__":
    from fer_repro.cli import main

    main()

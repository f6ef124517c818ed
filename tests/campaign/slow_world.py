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
loop.SAVING_SHARE = 10.0  # every epoch is saved, on a busy machine too
workers.COMMAND = (sys.executable, __file__)

if __name__ == "__main__":
    from fer_repro.cli import main

    main()

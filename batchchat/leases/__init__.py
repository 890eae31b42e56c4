"""One limit over workers on many machines: a desk that leases send times, and the limiter that lives on leases.

Nothing here knows how messages travel. One process holds the desk (``DeskService``, around the pure ``Desk``); in every
worker a ``LeasedLimiter`` takes the place of the run's ``Limiter``. Each message is one call: an ``Ask`` there, an
``Answer`` back, both msgspec structs.

At the desk, in an event loop::

    file = DeskFile(path, clock=boot_id())   # with what the desk leased before it was killed, if it was
    desk = file.open(rates, burst=…, tokens_per_minute=…, number=…)
    service = DeskService(desk, file.remember)
    answer = await service.exchange(ask)     # may be held for some seconds: many calls must be able to wait at once
    service.lost(worker)                     # a worker is known to be dead
    service.hold("paused"); service.release("paused"); service.set_rates(rates); service.pause(seconds)
    service.close()                          # answers whatever is held

In a worker::

    limiter = LeasedLimiter(rates, exchange=exchange, failed=…, notice=…, burst=…, tokens_per_minute=…)
    async with limiter: …                    # then as any Limiter

``number`` is another one at each start of the desk (a random one will do). ``exchange`` is an async callable that
takes an ``Ask`` and gives its ``Answer``; it raises ``DeskAwayError`` where the desk cannot be reached at the moment,
and must not send an ``Ask`` twice by itself. ``failed`` is called once with a sentence where the desk stayed away for
too long; it must end the run. In the driver, ``SteeringLimiter`` passes ``hold``, ``release`` and ``set_rates`` on to
the desk and shows what all workers do together.
"""

from batchchat.leases.desk import Desk
from batchchat.leases.desk_file import DeskFile
from batchchat.leases.limiter import LeasedLimiter
from batchchat.leases.messages import Answer, Ask, DeskAwayError
from batchchat.leases.schedule import Schedule
from batchchat.leases.service import DeskService
from batchchat.leases.steering import SteeringLimiter

__all__ = [
    "Answer",
    "Ask",
    "Desk",
    "DeskAwayError",
    "DeskFile",
    "DeskService",
    "LeasedLimiter",
    "Schedule",
    "SteeringLimiter",
]

"""``--concurrency auto``: how many prompts may be in flight, found out from what the service does.

``control`` decides, from refusals (``ceiling``) and from the time that answers take (``answer_times``); ``watch`` tells
it what came of each request; ``found_slots`` gives the run its slots. ADR 26 tells why it is so.
"""

from batchchat.auto_concurrency.control import MOST, ConcurrencyControl
from batchchat.auto_concurrency.found_slots import FoundSlots

__all__ = ["MOST", "ConcurrencyControl", "FoundSlots"]

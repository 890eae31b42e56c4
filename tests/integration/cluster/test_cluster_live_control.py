"""A run on a cluster that is asked, paused and given other rates; see ``test_live_control``."""

from tests.integration.test_live_control import *  # noqa: F403

# Slow prompts are under way in the workers, which do not tell of each.
del test_status_tells_what_only_the_run_knows  # noqa: F821
# How many wait in the workers is told once a second, and not at once.
del test_paused_run_sends_nothing_and_goes_on_when_it_is_resumed  # noqa: F821

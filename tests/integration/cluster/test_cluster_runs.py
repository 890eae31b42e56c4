"""A run on a cluster is a run; see ``test_run_job``."""

from tests.integration.test_run_job import *  # noqa: F403

# Shards go out side by side: with one prompt in flight, which of two is next is the workers' affair.
del test_prompts_that_wait_for_their_next_attempt_hold_no_slot  # noqa: F821

"""``--concurrency auto`` on a cluster: each worker finds its own number; see ``test_auto_concurrency_runs``."""

from tests.integration.test_auto_concurrency_runs import *  # noqa: F403

# Four from each worker.
del test_first_requests_are_few  # noqa: F821
# No run, and a run in another way.
del test_stream_takes_auto_as_well, test_two_processes_share_one_limit  # noqa: F821

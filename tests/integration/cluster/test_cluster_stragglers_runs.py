from tests.integration.test_stragglers_runs import *  # noqa: F403

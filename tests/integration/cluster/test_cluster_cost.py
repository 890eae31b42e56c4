"""What a run costs, on a cluster; see ``test_cost``."""

import pytest

from tests.integration.test_cost import *  # noqa: F403

pytestmark = pytest.mark.slow

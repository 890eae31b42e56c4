"""Lines that make several prompts, on a cluster; see ``test_variants``."""

from tests.integration.test_variants import *  # noqa: F403

del TestAttachments  # noqa: F821 - tells the prompts apart by the order of their answers

"""``dedup`` and ``reuse`` on a cluster; see ``test_shared_answers``."""

import pytest

from batchchat.errors import ConfigError
from tests.integration.test_shared_answers import *  # noqa: F403
from tests.integration.test_shared_answers import ask, same
from tests.integration.test_shared_answers import (
    test_equal_prompts_are_sent_once_and_each_has_its_line as _each_has_its_line,
)

del test_equal_prompts_are_sent_once_and_each_has_its_line  # noqa: F821


@pytest.mark.parametrize("concurrency", [1, 4, 50])
async def test_equal_prompts_are_sent_once_over_all_workers(tmp_path, concurrency: int):
    await _each_has_its_line(tmp_path, "completion", concurrency)


async def test_their_order_cannot_be_that_of_the_input(tmp_path):
    with pytest.raises(ConfigError, match="leave --dedup or --order input out"):
        await ask("http://127.0.0.1:9", tmp_path, *same(2), dedup=True, output__order="input")

"""What is tested of local runs, tested over the workers of a cluster: a double of one in this process."""

import pytest

import batchchat.ray.driver
import batchchat.runner
from tests.cluster_double import ClusterDouble


@pytest.fixture(autouse=True)
def _on_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batchchat.ray.driver, "Cluster", ClusterDouble)
    monkeypatch.setattr(batchchat.runner, "_made", lambda job: batchchat.ray.driver.RayAsking)

"""A cluster of Ray on this machine: two nodes of one core each, and a head of none."""

import pytest


@pytest.fixture
def cluster():
    """It has an address, and takes and loses nodes."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(num_cpus=1), made.add_node(num_cpus=1)]
    yield made
    ray.shutdown()
    made.shutdown()

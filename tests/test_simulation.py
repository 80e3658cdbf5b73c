"""Whatever happens, in whatever order, everything ends: a simulation of two and of ten
associations (see `simulation`).

``pytest tests/test_simulation.py --hypothesis-profile=thorough`` looks for longer.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from simulation import Simulation


class Ten(Simulation):
    """Ten associations with the same server."""

    most_associations = 12
    begin_with = 10


TestTwoAssociations = Simulation.TestCase
TestTenAssociations = Ten.TestCase

TestTwoAssociations.settings = TestTenAssociations.settings = settings(
    stateful_step_count=40,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

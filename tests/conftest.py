"""Settings for the whole suite. ``pytest --hypothesis-profile=thorough`` looks longer."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("default", max_examples=60, deadline=None)
settings.register_profile("thorough", max_examples=3000, deadline=None)
settings.load_profile("default")

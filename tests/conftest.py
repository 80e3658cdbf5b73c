"""Settings for the whole suite. ``pytest --hypothesis-profile=thorough`` looks longer."""

from __future__ import annotations

import os

from hypothesis import settings

# Hundreds of programs are started: each is a tenth of a second faster where what is compiled stays.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

settings.register_profile("default", max_examples=60, deadline=None)
settings.register_profile("thorough", max_examples=3000, deadline=None)
settings.load_profile("default")

"""Property tests here are not timed: other work on the machine must not fail them."""

from hypothesis import settings

settings.register_profile("rules", deadline=None)
settings.load_profile("rules")

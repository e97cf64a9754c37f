"""The version of the server, as answers tell it."""

from lolama_serve.__about__ import __version__

FINGERPRINT = f"b-lolama-serve-{__version__}"
"""Changes with what answers: clients that compare answers look at it."""

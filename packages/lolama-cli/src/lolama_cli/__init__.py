"""The ``lolama`` command."""

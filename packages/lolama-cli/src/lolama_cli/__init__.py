"""The ``lolama`` command: a program over the Python face `lolama`."""

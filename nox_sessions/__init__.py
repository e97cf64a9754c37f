"""The sessions of nox, a module for each kind; `noxfile.py` puts them together."""

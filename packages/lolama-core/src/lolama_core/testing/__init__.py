"""One suite of tests for each protocol: a package that implements a protocol subclasses its suite.

The suites need pytest, which is not among the dependencies of lolama-core.
"""

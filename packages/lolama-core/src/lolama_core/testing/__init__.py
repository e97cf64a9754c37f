"""One suite of tests for each protocol: a package that implements a protocol subclasses its suite.

The suites need pytest, which is not among the dependencies of lolama-core.
"""

import pytest

# Before the suites are imported, so that a failing one shows the values it compared.
for _suite in (
    "checkpoint",
    "decoder_kernel",
    "engine",
    "image",
    "kv_cache",
    "model",
    "quantizer",
    "sampling",
    "source",
    "text",
):
    pytest.register_assert_rewrite(f"{__name__}.{_suite}")

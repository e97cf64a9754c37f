"""Options that several commands take, each with one name and one meaning."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[
    str, typer.Option("-m", "--model", help="Model alias or local path.", metavar="TEXT")
]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Download without asking.")]

"""Text into the clipboard, by what the desktop has for it, else by asking the terminal."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys

from lolama_core.protocols.errors import NotAvailableError, ResourceError

_SECONDS = 5.0
_MOST_BYTES = 74_000
"""The most that is copied by an escape sequence: many terminals take 100,000 characters of base64."""


def _programs() -> list[list[str]]:
    if sys.platform == "darwin":
        return [["pbcopy"]]
    if os.environ.get("WAYLAND_DISPLAY"):
        return [["wl-copy"]]
    if os.environ.get("DISPLAY"):
        return [["xclip", "-selection", "clipboard"], ["xsel", "--clipboard", "--input"]]
    return []


def copy(text: str, *, terminal: bool) -> str:
    """Copy it; by what means, for the user.

    Args:
        text: The text to copy.
        terminal: Whether an escape sequence may be sent to the terminal on standard error (OSC 52). Nothing
            tells whether it did as it was asked.

    Raises:
        NotAvailableError: if there is no means.
        ResourceError: if the means failed.
    """
    data = text.encode("utf-8", errors="replace")
    # No relative ones: the current directory may be a model's folder, and nothing in that is run.
    directories = os.pathsep.join(filter(os.path.isabs, os.get_exec_path()))
    for command in _programs():
        program = shutil.which(command[0], path=directories)
        if program is None:
            continue
        try:
            subprocess.run(
                [program, *command[1:]],
                input=data,
                check=True,
                timeout=_SECONDS,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ResourceError(command[0], f"failed: {error}", "") from None
        return f"copied {len(text):,} characters with {command[0]}"
    if not terminal or sys.stderr is None or not sys.stderr.isatty():
        reason = "there is no clipboard program here that could be used"
        raise NotAvailableError("/copy", reason, "/save the conversation instead")
    if len(data) > _MOST_BYTES:
        reason = f"{len(data):,} bytes are more than a terminal takes"
        raise NotAvailableError("/copy", reason, "/save the conversation instead")
    sys.stderr.write(f"\x1b]52;c;{base64.b64encode(data).decode()}\x07")
    sys.stderr.flush()
    return f"asked the terminal to copy {len(text):,} characters (OSC 52); not all terminals do"

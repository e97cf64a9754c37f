"""The program ``lolama``; also ``python -m lolama_cli``.

Nothing here imports more than the interpreter has loaded itself until the guards are up, so that Ctrl-C is
quiet and a closed stream harmless from the first moment on.
"""

import os
import sys

_NO_MEMORY = b"error: memory: there is not enough of it; raise the limit (`ulimit -v`)\n"


def main() -> None:
    """Run the command line; ends the process with an exit code of the contract."""
    code = _run(sys.argv[1:])
    import contextlib

    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError):  # one that is closed
            stream.flush()
    # Not sys.exit(): the interpreter takes a while to pull down torch, during which Ctrl-C would kill it,
    # and it kills itself anyway if Ctrl-C once came inside a library's exec().
    os._exit(code)


class _Signals:
    """Turns SIGINT and SIGTERM into exceptions, and remembers that one came.

    A library may turn the exception into one of its own on its way up; the exit code still tells the truth.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None

    def install(self) -> None:
        """Receive the signals from now on. Ctrl-C while this runs is still a KeyboardInterrupt."""
        import signal

        for number in (signal.SIGINT, signal.SIGTERM):
            # A shell that starts a job in the background has it ignore Ctrl-C; that stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._received)

    def _received(self, number: int, frame: object) -> None:
        import signal

        self.exit_code = 128 + number
        if _is_being_imported("torch"):  # which an exception may abort, with a dump of the stack
            os._exit(self.exit_code)
        signal.signal(number, signal.SIG_DFL)  # whoever asks twice does not want to wait
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        from lolama_cli.errors import Terminated

        raise Terminated


def _is_being_imported(name: str) -> bool:
    spec = getattr(sys.modules.get(name), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


def _run(arguments: list[str]) -> int:
    signals = _Signals()
    try:
        signals.install()
        import gc

        # Importing torch makes objects by the hundred thousand, none of them garbage. Left as it is, the
        # collector walks through them again and again, which takes a quarter of a start.
        gc.set_threshold(100_000)
        _occupy_standard_descriptors()
        from lolama_cli import address_space
        from lolama_cli.errors import Settings, report

        address_space.watch()
        settings = Settings()
        try:
            from lolama_cli.app import run

            return run(arguments, settings)
        except BaseException as error:
            if signals.exit_code is not None:
                raise
            return report(error, settings)
    except MemoryError:  # not even enough to say so with words made up
        if signals.exit_code is None:
            os.write(2, _NO_MEMORY)
            return 6
    except BaseException as error:
        if signals.exit_code is None:
            if isinstance(error, KeyboardInterrupt):  # while the signals were being installed
                return 130
            raise
    from lolama_cli.console import silence

    silence(1)  # what is left unwritten stays so
    return signals.exit_code


def _occupy_standard_descriptors() -> None:
    """Fill a closed 0, 1 or 2, or the next file opened would get that number and library chatter."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)


if __name__ == "__main__":
    main()

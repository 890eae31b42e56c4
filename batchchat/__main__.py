"""The command ``batchchat``, also as ``python -m batchchat``."""

import signal
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Runs the command line; see ``batchchat.cli.main``."""
    # While our modules are read, Ctrl-C ends the process as it ends any other: there is nothing to be told or saved.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from batchchat.garbage import put_off_collecting

    put_off_collecting()
    from batchchat.cli import main as run_command_line

    if ours:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run_command_line()


if __name__ == "__main__":
    main()

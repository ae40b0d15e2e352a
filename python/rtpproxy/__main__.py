"""The ``rtpproxy`` command: the same program as the binary."""

import signal
import sys

from rtpproxy._rtpproxy import run_cli


def main() -> int:
    """Runs the command line of this process and returns the exit status."""
    # The program has its own idea of signals; Python's would only take effect after it returned.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return run_cli(sys.argv)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m senet.utils.child PARENT COMMAND...`: execute COMMAND, with SIGTERM when the process PARENT ends.

When a study is killed, its runs save and end, and the same command resumes them. Only Linux has such a signal. On other
systems the runs continue to their end, and another study waits for them.

A run of a study begins with this module, which therefore imports nothing that takes time.
"""

import ctypes
import os
import signal
import sys

from senet.utils.isolation import python_module

__all__ = ["child_command", "execute"]

_PR_SET_PDEATHSIG = 1


def child_command(command: list[str]) -> list[str]:
    """Return the command that executes another one as a child of this process."""
    return python_module("senet.utils.child", [str(os.getpid()), *command])


def execute(parent: int, command: list[str]) -> None:
    """Replace this process by a command, under the same process id."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent ended before the call above
            raise SystemExit(128 + signal.SIGTERM)
    os.execv(command[0], command)


if __name__ == "__main__":
    execute(int(sys.argv[1]), sys.argv[2:])

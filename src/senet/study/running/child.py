"""`python -m senet.study.running.child PARENT COMMAND...`: become COMMAND; it receives SIGTERM when PARENT ends.

A study that is killed then leaves no runs behind: they save and end, and the same command goes on with them. Linux
alone has such a signal; elsewhere runs that are left behind go on to their end, and another study waits for them.
"""

import ctypes
import os
import signal
import sys

from senet.utils.isolation import python_module

__all__ = ["become", "child_command"]

_PR_SET_PDEATHSIG = 1


def child_command(command: list[str]) -> list[str]:
    """The command to start as a child of this process."""
    return python_module("senet.study.running.child", [str(os.getpid()), *command])


def become(parent: int, command: list[str]) -> None:
    """Take the command's place in this process, which keeps its number."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it ended before it could be told
            raise SystemExit(128 + signal.SIGTERM)
    os.execv(command[0], command)


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])

"""How the commands of this package end, and how they speak."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Callable


def run_command(name: str, command: Callable[[], None]) -> int:
    """Runs a command and returns its exit status: 0, or 1 or 130 with one text on standard error that says what went wrong."""
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError as error:
        if error.filename is not None:  # it is not standard output's
            complain(name, error)
        else:  # whoever read it has seen enough; what Python still wants to write at its end goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, ValueError, RuntimeError, MemoryError, pickle.UnpicklingError) as error:
        complain(name, error)
        return 1
    except KeyboardInterrupt:
        complain(name, "interrupted")
        return 130
    return 0


def say(text: str) -> None:
    """Prints a line. A path may have characters that the terminal's encoding lacks, or bytes that are no characters at all."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def complain(name: str, text: object) -> None:
    print(f"veturboio.{name}: {text}", file=sys.stderr)

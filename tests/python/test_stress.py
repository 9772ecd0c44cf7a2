"""Stress: a short version of make test-stress."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fresh_process import environment


def test_a_short_campaign():
    command = [sys.executable, Path(__file__).with_name("stress_campaign.py"), "--interrupts", "0", "--exits", "9"]
    command += ["--threads", "64", "--processes", "4", "--repeats", "10"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("7 parts, 0 violations\n")

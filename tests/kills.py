"""Processes that are killed at any moment of what they do."""

import multiprocessing
import os
import signal
import time


def kill_during(work, argument, seconds):
    """Run `work(argument)` in a process of its own and kill it (SIGKILL) after so many seconds."""
    process = multiprocessing.get_context("fork").Process(target=work, args=(argument,))
    process.start()
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.join()

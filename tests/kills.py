"""Processes that are killed at any moment of what they do."""

import multiprocessing
import os
import signal
import time


def kill_during(work, argument, rng):
    """Kill (SIGKILL) a process of its own that runs `work(argument, done)`, at any moment of a round of it.

    `work` counts its rounds in `done.value`. A few are waited for, so that a busy machine is killed in the midst
    of its work too; the last one is left some part of the time that one takes.
    """
    context = multiprocessing.get_context("fork")
    done, rounds = context.Value("i", 0), int(rng.integers(1, 6))
    process = context.Process(target=work, args=(argument, done))
    process.start()
    start = time.perf_counter()
    while done.value < rounds:
        assert process.is_alive(), "it ended by itself"
        time.sleep(0.0005)
    time.sleep(rng.uniform(0, (time.perf_counter() - start) / rounds))
    os.kill(process.pid, signal.SIGKILL)
    process.join()

"""A program for tests: runs command lines of the pipeline in processes that may be told to die inside a write.

It imports once and forks for each line of standard input, a JSON object with ``words``, the command line; ``log``, a
file for what it prints; ``events``, a file that gets a line for every write; ``die``, the number of the write in which
the process kills itself, half done; and ``stop``, the number of the write before which it stops, as by Ctrl-Z. It
answers with the process number, then with the exit code.
"""

import json
import os
import shutil
import signal
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path

import transformers.models.llama.modeling_llama  # noqa: F401 - before the fork

import llm_pipeline.waiting  # noqa: F401
from llm_pipeline import durable, hidden, resume
from llm_pipeline.__main__ import app


class Writes:
    """Counts the writes of this process, and ends it inside one of them."""

    def __init__(self, events, die, stop):
        self.events = os.open(events, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if events else None
        self.die, self.stop, self.count = die, stop, 0

    def fatal(self, kind, path):
        """Whether the process shall die in this write."""
        self.count += 1
        if self.events is not None:
            os.write(self.events, f"{kind} {Path(path).name}\n".encode())
        if self.count == self.stop:
            os.kill(os.getpid(), signal.SIGSTOP)
        return self.count == self.die

    def watch(self):
        """Stand before every write of the pipeline."""
        write, flush, replace = durable.write, durable.flush, os.replace

        def half_written(handle, data):
            if self.fatal("write", os.readlink(f"/proc/self/fd/{handle}")):
                write(handle, data[: len(data) // 2])
                end()
            write(handle, data)

        def half_copied(source, path):
            if self.fatal("copy", path):
                Path(path).write_bytes(Path(source).read_bytes()[: Path(source).stat().st_size // 2])
                end()
            Path(path).write_bytes(Path(source).read_bytes())

        def before(kind, original, last=-1):
            def watched(*paths, **options):
                if self.fatal(kind, paths[last]):
                    end()
                return original(*paths, **options)

            return watched

        durable.write, durable.shutil.copyfile = half_written, half_copied
        durable.flush = hidden.flush = before("flush", flush)
        durable.os.replace = before("name", replace)
        Path.unlink = before("remove", Path.unlink, 0)
        shutil.rmtree = before("remove", shutil.rmtree, 0)


def end():
    """As kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


def run(words, log=os.devnull, events=None, die=None, stop=None):
    """One command line; never returns. Ctrl-C reaches it also where the tests run in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    if events or die or stop:
        Writes(events, die, stop).watch()
    code = 70
    try:
        app(words)
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    assert resume
    with suppress(SystemExit), redirect_stdout(None):
        app(["inspect"])
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            run(**json.loads(line))
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
    os._exit(0)

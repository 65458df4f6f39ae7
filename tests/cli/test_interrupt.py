"""Ctrl-C where Python itself would lose it, or would leave a half-imported module."""

import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

_SCRIPT = """
    import os, signal, sys, time, weakref
    from dlzoo.cli.main import main

    class Held: pass

    class Output:
        # The first text that is written meets the interrupt in a weak reference's callback.
        def __init__(self, stream):
            self.stream, self.held = stream, Held()
            self.reference = weakref.ref(self.held, self.interrupt)
        def interrupt(self, _):
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                pass
            self.stream.write("not in the callback")
        def write(self, text):
            self.held = None
            for _ in range(200):
                time.sleep(0.01)
            return self.stream.write(text)
        def __getattr__(self, name):
            return getattr(self.stream, name)

    sys.stdout = Output(sys.stdout)
    sys.argv = ["dlzoo", "models"]
    main()
"""


def test_an_interrupt_in_a_callback_still_ends_the_command() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", dedent(_SCRIPT)], capture_output=True, text=True, timeout=60
    )
    assert (ended.returncode, ended.stdout) == (130, ""), ended.stderr
    assert ended.stderr == "dlzoo: interrupted; nothing was left behind.\n"


def test_an_interrupt_waits_for_the_end_of_an_import(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        dedent("""
            import sys, time
            print("importing", flush=True)
            try:
                time.sleep(1)
                print("imported", flush=True)
            except KeyboardInterrupt:
                print("half imported", flush=True)
        """)
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "dlzoo", "export", "slow.py:factory", "-o", "bundle"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "imported\n"), err
    assert "dlzoo: interrupted; nothing was left behind." in err
    assert [path.name for path in tmp_path.iterdir() if path.name != "__pycache__"] == [
        "slow.py"
    ]

"""What processes leave behind that work for one that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from patience import wait_for

FILES = 5000  # which take some time to delete
STARTS_A_WORKER = """
import sys, time
from pathlib import Path
from bytecover2_milvus.parallel import Worker
worker = Worker(len, Path(sys.argv[1]))
worker.ask(())
while not list(worker.answers()):
    pass
print(worker.pid, flush=True)
time.sleep(1000)
"""


def test_a_worker_deletes_the_folder_of_a_process_that_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(FILES):
        (folder / str(number)).touch()
    process = subprocess.Popen([sys.executable, "-c", STARTS_A_WORKER, str(folder)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout
        worker = int(process.stdout.readline())
        os.kill(worker, signal.SIGSTOP)  # so that it learns of all at once
        process.kill()
        os.kill(worker, signal.SIGCONT)
        wait_for(lambda: not folder.exists())

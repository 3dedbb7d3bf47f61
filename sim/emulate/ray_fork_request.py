"""The script that Ray starts for each worker, in place of its own: it has a fork server make the worker.

It imports little, since every worker waits for it. Where there is no server, Ray's own script does it.
"""

import json
import os
import socket
import sys
from pathlib import Path

SERVER = "COFIX_FORK_SERVER"
"""Environment variable that holds the path of the server's socket."""


def main() -> None:
    """Hand over arguments, environment, working directory and standard streams; return once the worker runs."""
    try:
        request = {
            "arguments": sys.argv[1:],
            "environment": dict(os.environ),
            "folder": str(Path.cwd()),
            "oom_score_adj": Path("/proc/self/oom_score_adj").read_text(),  # by which Ray has workers killed first
        }
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(os.environ[SERVER])
            socket.send_fds(server, [b"\0"], [0, 1, 2])
            server.sendall(json.dumps(request).encode())
            server.shutdown(socket.SHUT_WR)
            if server.recv(1):
                return
    except OSError:  # there is no server, or no Linux
        pass
    worker = next(argument for argument in sys.argv if argument.endswith("default_worker.py"))
    os.execv(sys.executable, [sys.executable, str(Path(worker).with_name("setup_worker.py")), *sys.argv[1:]])


if __name__ == "__main__":
    main()

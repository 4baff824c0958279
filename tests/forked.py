"""Commands in processes that are forked where everything is imported: seconds less for each.

`python tests/forked.py SOCKET` serves. `python tests/forked.py SOCKET unimodal WORDS` is the
command `unimodal WORDS`, and with `python CODE` in place of that the program CODE: the folder, the
environment and the standard streams are the caller's, and so is the exit status.
"""

import array
import json
import os
import signal
import socket
import sys
import traceback

STREAMS = 3
MAX_BYTES = 1 << 20


def call(path: str, kind: str, words: list[str]) -> int:
    """Let the server run a command and return its exit status; imports next to nothing."""
    asked = {"kind": kind, "words": words, "cwd": os.getcwd(), "env": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        streams = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", range(STREAMS)))
        connection.sendmsg([b"s"], [streams])
        connection.sendall(json.dumps(asked).encode())
        connection.shutdown(socket.SHUT_WR)
        return int(connection.recv(16) or b"70")  # nothing: the process was killed


def serve(path: str) -> None:
    """Answer calls until the process is ended, each in a process of its own."""
    import unimodal.command
    import unimodal.data.loader
    import unimodal.eval.scenes
    import unimodal.train.lm  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # what has ended leaves nothing behind
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        while True:
            connection, _ = listening.accept()
            if os.fork() == 0:
                listening.close()
                answer(connection)
            connection.close()


def answer(connection: socket.socket) -> None:
    """Take the caller's place, run what it asks for, and end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, sent, _, _ = connection.recvmsg(1, socket.CMSG_LEN(STREAMS * array.array("i").itemsize))
    for number, stream in enumerate(array.array("i", sent[0][2])):
        os.dup2(stream, number)
    # Others than those that the server began with: of a file where that had a pipe, or so.
    sys.stdout = open(1, "w", closefd=False)
    sys.stderr = open(2, "w", buffering=1, closefd=False)
    asked = json.loads(b"".join(iter(lambda: connection.recv(MAX_BYTES), b"")))
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    sys.path[0] = asked["cwd"]  # as `python -m` and `python -c` have it, in place of tests/
    sys.argv = ["unimodal", *asked["words"]]
    status = 0
    try:
        run(asked["kind"], asked["words"])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(str(status).encode())
    os._exit(0)


def run(kind: str, words: list[str]) -> None:
    """Run the command `unimodal`, or a program."""
    if kind == "python":
        exec(compile(words[0], "<program>", "exec"), {"__name__": "__main__"})
        return
    from unimodal.command import main

    main(words, prog_name="unimodal")


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve(sys.argv[1])
    else:
        sys.exit(call(sys.argv[1], sys.argv[2], sys.argv[3:]))

"""A PostgreSQL server of Debian's package on loopback, in a temporary folder."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

PASSWORD = "hidden-from-all"


def programs() -> Path | None:
    """The folder of the newest server's programs; None if there is none."""
    return max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), default=None)


class Server:
    """`stop`, `start` and `restart` it; `url` names a database that is made when it is asked for the first time."""

    def __init__(self, folder: Path, port: int):
        self.data, self.port, self._made = folder / "data", port, set()
        (folder / "password").write_text(PASSWORD)
        # the server refuses to run as root
        self._user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self._user:
            who = pwd.getpwnam("postgres")
            for path in (folder, folder / "password"):
                os.chown(path, who.pw_uid, who.pw_gid)
        self._do("initdb", "-D", self.data, "-U", "me", "-A", "scram-sha-256", "--pwfile", folder / "password", "-N")
        with open(self.data / "postgresql.conf", "a") as file:
            file.write(f"port = {port}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{folder}'\n")

    def _do(self, program, *arguments):
        env = os.environ | {"PGPASSWORD": PASSWORD, "LC_ALL": "C"}
        done = subprocess.run(
            [programs() / program, *map(str, arguments)], cwd="/", env=env, stdin=subprocess.DEVNULL, text=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **self._user,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def start(self):
        self._do("pg_ctl", "-D", self.data, "-w", "-l", self.data / "log", "start")

    def stop(self, mode="fast"):
        self._do("pg_ctl", "-D", self.data, "-w", "-m", mode, "stop")

    def url(self, database, password=PASSWORD):
        if database not in self._made:
            self._made.add(database)
            self._do("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", "me", database)
        return f"postgresql://me:{password}@127.0.0.1:{self.port}/{database}"

    def sql(self, database, statement):
        self._do("psql", "-q", "-h", "127.0.0.1", "-p", self.port, "-U", "me", "-d", database, "-c", statement)


@contextlib.contextmanager
def server():
    folder = Path(tempfile.mkdtemp(prefix="nasaug-postgres-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        made = Server(folder, port)
        made.start()
        try:
            yield made
        finally:
            with contextlib.suppress(AssertionError):
                made.stop("immediate")
    finally:
        shutil.rmtree(folder)

"""The peers: what each of them needs, and how its server is started."""
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
WORK = ROOT / "target" / "peers"


class Missing(Exception):
    """Something that this peer needs is not here."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run(command, **options):
    """A step of the preparation, which is told only if it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
    if done.returncode != 0:
        last = done.stdout.strip().splitlines()[-1:] or ["it says nothing"]
        raise Missing(f"{Path(command[0]).name}: {last[0]}")


def versioned(program):
    """The path of a program whose name may end with its version, as Debian has it."""
    found = sorted(Path("/usr/sbin").glob(f"{program}[0-9]*"))
    return shutil.which(program) or next(map(str, found), None)


def need(program, package, find=shutil.which):
    """The path of a program, which Debian's package brings where we may install it."""
    if not find(program) and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(
            ["apt-get", "install", "-yq", "--no-install-recommends", package],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
        )
    path = find(program)
    if not path:
        raise Missing(f"no {program}: Debian's package {package} has it")
    return path


class Server:
    """One start of a peer: its port, what its callbacks noted, and its end."""

    def __init__(self, peer):
        self.port = free_port()
        self.log = WORK / f"{peer.name}.log"
        self.log.unlink(missing_ok=True)
        # PHP's children may be another user.
        self.log.touch()
        self.log.chmod(0o666)
        self.processes = [
            subprocess.Popen(
                command, cwd=WORK, env={**os.environ, "PEER_LOG": str(self.log)},
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )
            for command in peer.commands(self.port, self.log)
        ]
        self.wait_until_it_answers()

    def wait_until_it_answers(self):
        for _ in range(500):
            if self.processes[0].poll() is not None:
                raise Missing("its server ends at once")
            try:
                if get(self.port, "/plain").startswith(b"HTTP/1.1 200"):
                    return
            except OSError:
                pass
            time.sleep(0.02)
        self.kill()
        raise Missing("its server does not answer")

    def noted(self, what):
        """When callbacks noted this, in nanoseconds."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [int(when) for name, when in lines if name == what]

    def terminate(self):
        """SIGTERM to the server that runs callbacks, and at last an end of everything."""
        self.processes[0].send_signal(signal.SIGTERM)
        try:
            self.processes[0].wait(5)
        except subprocess.TimeoutExpired:
            pass
        self.kill()

    def kill(self):
        for process in self.processes:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def get(port, path):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
        answer = b""
        while part := client.recv(1 << 16):
            answer += part
    return answer


class Php:
    name = "php-fpm"
    title = "PHP-FPM, fastcgi_finish_request"

    def prepare(self):
        self.nginx = need("nginx", "nginx-light")
        self.fpm = need("php-fpm", "php-fpm", versioned)

    def commands(self, port, log):
        user = "www-data" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        known = {"WORK": WORK, "PORT": port, "HERE": HERE, "LOG": log, "USER": user}
        for name in ("fpm.conf", "nginx.conf"):
            text = (HERE / "php" / name).read_text()
            for key, value in known.items():
                text = text.replace(f"@{key}@", str(value))
            (WORK / name).write_text(text)
        root = ["--allow-to-run-as-root"] if os.geteuid() == 0 else []
        return [
            [self.fpm, *root, "--fpm-config", str(WORK / "fpm.conf")],
            [self.nginx, "-c", str(WORK / "nginx.conf")],
        ]


class Starlette:
    name = "starlette"
    title = "Starlette, BackgroundTask"

    def prepare(self):
        self.python = WORK / "venv" / "bin" / "python"
        if not self.python.exists():
            run([sys.executable, "-m", "venv", str(WORK / "venv")])
        run([str(self.python), "-m", "pip", "install", "-q", "starlette", "uvicorn[standard]"])

    def commands(self, port, _):
        app = ["--app-dir", str(HERE / "starlette"), "app:app"]
        quiet = ["--no-access-log", "--log-level", "critical"]
        return [[str(self.python), "-m", "uvicorn", "--port", str(port), *quiet, *app]]


class Fastify:
    name = "fastify"
    title = "Fastify, onResponse"

    def prepare(self):
        self.node = need("node", "nodejs")
        npm = need("npm", "npm")
        self.app = WORK / "fastify"
        self.app.mkdir(exist_ok=True)
        for name in ("app.mjs", "package.json"):
            shutil.copy(HERE / "fastify" / name, self.app)
        run([npm, "install", "--no-audit", "--no-fund"], cwd=self.app)

    def commands(self, port, log):
        return [[self.node, str(self.app / "app.mjs"), str(port), str(log)]]


class Rust:
    def __init__(self, way, title):
        self.way = self.name = way
        self.title = title

    def prepare(self):
        build = ["cargo", "build", "--release", "--locked", "--target-dir", str(WORK / "rust")]
        run(build, cwd=HERE / "rust")

    def commands(self, port, log):
        binary = WORK / "rust" / "release" / "axum-defer-peers"
        return [[str(binary), self.way, f"127.0.0.1:{port}", str(log)]]


PEERS = [
    Php(),
    Starlette(),
    Fastify(),
    Rust("spawn", "axum, tokio::spawn"),
    Rust("tracker", "axum, TaskTracker"),
    Rust("defer", "axum-defer"),
    Rust("completes", "axum-defer, run_to_completion"),
]

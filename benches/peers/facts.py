"""What happens to deferred work when a client is slow, leaves, or the server is stopped."""
import socket
import struct
import threading
import time

from peers import Server, get

RESETS = 50
STOPS = 10


def ask(port, path):
    client = socket.create_connection(("127.0.0.1", port), timeout=10)
    client.sendall(f"GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".encode())
    return client


def reset(client):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def until(done, seconds):
    """Waits for what may never come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not done():
        time.sleep(0.01)


def slow_reader(server):
    """A client reads 64 KiB of 20 MiB, rests for a second, and reads on: how much of it had the
    client read when the callback began, and how long was that before its last byte?"""
    read = [(0, time.time_ns())]

    def take(client, most):
        part = client.recv(most)
        if part:
            read.append((read[-1][0] + len(part), time.time_ns()))
        return part

    with socket.socket() as client:
        # Small, so that the bytes are with the server and not in this process.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        client.settimeout(10)
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"GET /download HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        while read[-1][0] < 64 << 10 and take(client, 16 << 10):
            pass
        time.sleep(1)
        while take(client, 256 << 10):
            pass
    until(lambda: server.noted("download"), 2)
    noted = server.noted("download")
    if not noted:
        return None
    before = [count for count, when in read if when <= noted[0]]
    return {
        "mib_read": round(before[-1] / (1 << 20), 1),
        "mib_in_all": round(read[-1][0] / (1 << 20), 1),
        "seconds_early": round((read[-1][1] - noted[0]) / 1e9, 3),
    }


def resets(server, path, after):
    """So many clients reset their connection in the middle: how many callbacks ran?"""
    def one():
        client = ask(server.port, path)
        if after:
            client.recv(after)
        else:
            time.sleep(0.1)
        reset(client)

    # In tens: PHP-FPM has sixteen children.
    for _ in range(RESETS // 10):
        clients = [threading.Thread(target=one) for _ in range(10)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        time.sleep(0.7)
    what = path.strip("/")
    until(lambda: len(server.noted(what)) >= RESETS, 2)
    return len(server.noted(what))


def stops(peer):
    """SIGTERM 100 ms into a callback of 500 ms: how many of ten finished?"""
    finished = 0
    for _ in range(STOPS):
        with Server(peer) as server:
            get(server.port, "/lasts")
            until(lambda: server.noted("began"), 2)
            time.sleep(0.1)
            server.terminate()
            finished += len(server.noted("finished"))
    return finished


def fails_first(server):
    """The first of two fails: does the second run?"""
    get(server.port, "/fails-first")
    until(lambda: server.noted("second"), 1)
    return bool(server.noted("second"))


def facts(peer):
    with Server(peer) as server:
        found = {
            "slow_reader": slow_reader(server),
            "reset_before_defer": resets(server, "/waits-then-defers", 0),
            "reset_after_defer": resets(server, "/defers-then-waits", 0),
            "reset_in_stream": resets(server, "/stream", 1 << 10),
            "second_runs": fails_first(server),
        }
    found["finished_at_sigterm"] = stops(peer)
    return found

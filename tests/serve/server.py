"""A `vlens serve` for tests: started on a free port, spoken to by plain sockets, stopped by SIGINT."""
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.parse


class Server:
    def __init__(self, vlens, model, folder, *arguments):
        self.folder = pathlib.Path(folder)
        # under AddressSanitizer, freed memory would be kept back and look like growth
        asan = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "quarantine_size_mb=1"]))
        self.process = subprocess.Popen([vlens, "serve", "--model", str(model), "--port", "0", "--json", "--quiet", *arguments],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "TMPDIR": str(folder), "ASAN_OPTIONS": asan})
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError("the server did not start: " + self.process.stderr.read().decode())
        self.url = json.loads(line)["url"]
        parts = urllib.parse.urlparse(self.url)
        self.host, self.port, self.path = parts.netloc, parts.port, parts.path

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def raw(self, data):
        """The status of what is answered to these bytes, and the body; 0 where the connection is closed."""
        with self.connect() as s:
            try:
                s.sendall(data)
            except OSError:
                pass
            answer = b""
            try:
                while chunk := s.recv(65536):
                    answer += chunk
            except OSError:
                pass
        head, _, body = answer.partition(b"\r\n\r\n")
        return (int(head.split()[1]) if head else 0), body

    def ask(self, method, path, body=b"", host=None, **headers):
        lines = [f"{method} {path} HTTP/1.1", "Host: " + (self.host if host is None else host), "Connection: close"]
        headers = {"Content_Length": len(body), **headers} if method == "POST" else headers
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
        return self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def get(self, path):
        return self.ask("GET", self.path + path)

    def post(self, path, body):
        status, answer = self.ask("POST", self.path + path, body)
        return status, json.loads(answer)

    def wait(self, job, seconds=120):
        """The last state of a job."""
        _, body = self.get(f"events?job={job}")
        states = [json.loads(line[6:]) for line in self.dechunk(body).split(b"\n") if line.startswith(b"data: ")]
        return states[-1]

    @staticmethod
    def dechunk(body):
        out = b""
        while body:
            size, _, rest = body.partition(b"\r\n")
            n = int(size, 16) if size else 0
            if not n:
                break
            out, body = out + rest[:n], rest[n + 2:]
        return out

    def memory(self):
        """Resident bytes."""
        return int(pathlib.Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def left(self):
        """Files in its temporary folder."""
        return [f for d in self.folder.glob("vlens-serve-*") for f in d.iterdir()]

    def stop(self):
        """Seconds that it took, and what it said."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        return time.monotonic() - start, self.process.returncode, self.process.stderr.read().decode()

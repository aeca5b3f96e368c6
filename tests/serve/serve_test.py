#!/usr/bin/env python3
"""`vlens serve` from outside: its readings are those of `vlens view --json`, hostile requests are refused each with its
status and reach no model, nothing stays on the disk, memory does not grow, and Ctrl-C ends it.

serve_test.py VLENS SOURCE OUTPUT"""
import json
import pathlib
import shutil
import subprocess
import sys
import threading
import time

from server import Server

PROMPT = "What shape is red? Answer with one word."
MIB = 1 << 20


def same(a, b, what):
    if a != b:
        raise AssertionError(f"{what}: got {a!r}, expected {b!r}")


def answers_like_view(server, vlens, source, picture):
    image = source / "data/demo/images/002.png"
    status, answer = server.post("ask", json.dumps({"prompt": PROMPT, "pictures": [picture], "k": 4, "track": ["red"]}).encode())
    same(status, 202, "a question")
    state = server.wait(answer["job"])
    same(state["state"], "done", f"its end ({state['message']})")
    status, body = server.get(f"reading/{state['reading']}.json")
    same(status, 200, "its JSON")
    done = subprocess.run([vlens, "view", "--model", str(source / "data/demo/model"), "--image", str(image), "--prompt", PROMPT,
                           "-k", "4", "--track", "red", "--json", "--quiet", "--out", "view.html"], check=True,
                          stdout=subprocess.PIPE, cwd=server.folder)
    same(json.loads(body), json.loads(done.stdout), "the reading")
    status, page = server.get(f"reading/{state['reading']}")
    same(status, 200, "its page")
    assert b"default-src 'none'" in page and b"vlens-page" in page
    same([r["title"] for r in json.loads(server.get("readings")[1])], [PROMPT], "what is kept")


def refuses(server, picture):
    """Each hostile request, and the status that it gets; none makes a job."""
    path, body = server.path, json.dumps({"prompt": "x"}).encode()
    long = "x" * 70000
    other = "/" + "0" * 32 + "/"
    cases = [
        ("another host", 421, server.ask("GET", path, host="evil.example")),
        ("no host", 421, server.ask("GET", path, host="")),
        ("the host without its port", 421, server.ask("GET", path, host="127.0.0.1")),
        ("no token", 403, server.ask("GET", "/")),
        ("another token", 403, server.ask("GET", other)),
        ("a part of the token", 403, server.ask("GET", path[:-4] + "/")),
        ("another page", 403, server.ask("POST", path + "ask", body, Origin="http://evil.example")),
        ("a page of a file", 403, server.ask("POST", path + "ask", body, Origin="null")),
        ("another scheme", 403, server.ask("POST", path + "ask", body, Origin="https://" + server.host)),
        ("a path outside", 404, server.ask("GET", path + "../../../etc/passwd")),
        ("an escaped one", 404, server.ask("GET", path + "%2e%2e/%2e%2e/etc/passwd")),
        ("a reading by path", 404, server.ask("GET", path + "reading/..%2f..%2fetc%2fpasswd")),
        ("a reading that is not there", 404, server.ask("GET", path + "reading/99999999999999999999")),
        ("a job that is not there", 404, server.ask("POST", path + "cancel?job=77")),
        ("the wrong method", 405, server.ask("GET", path + "ask")),
        ("another method", 405, server.ask("DELETE", path)),
        ("no JSON", 400, server.ask("POST", path + "ask", b"{")),
        ("an unknown key", 400, server.ask("POST", path + "ask", b'{"prompt": "x", "model": "/other"}')),
        ("a picture of nobody", 400, server.ask("POST", path + "ask", b'{"prompt": "x", "pictures": [999]}')),
        ("deep JSON", 400, server.ask("POST", path + "ask", b"[" * 100000)),
        ("1 GB at once", 413, server.raw(f"POST {path}picture HTTP/1.1\r\nHost: {server.host}\r\nContent-Length: {1 << 30}\r\n\r\n"
                                         .encode())),
        ("a length beyond numbers", (400, 413), server.raw(f"POST {path}picture HTTP/1.1\r\nHost: {server.host}\r\n"
                                                         f"Content-Length: {'9' * 40}\r\n\r\n".encode())),
        ("a large question", 413, server.ask("POST", path + "ask", b" " * (MIB + 1))),
        ("3 MiB in chunks where 2 are allowed", 413, server.raw(
            f"POST {path}picture HTTP/1.1\r\nHost: {server.host}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode() +
            (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 48 + b"0\r\n\r\n")),
        ("half a picture", 422, server.ask("POST", path + "picture", picture[:len(picture) // 2])),
        ("no picture", 422, server.ask("POST", path + "picture", b"<svg onload=alert(1)>")),
        ("an empty one", 422, server.ask("POST", path + "picture", b"")),
        ("long headers", (414, 431, 413, 400), server.ask("GET", path, X_Long=long)),
        ("a long path", (403, 404, 414), server.ask("GET", "/" + long)),
        ("no HTTP", (0, 400), server.raw(b"\x16\x03\x01\x00\xff\x00\r\n\r\n")),
    ]
    for what, expected, (status, answer) in cases:
        allowed = expected if isinstance(expected, tuple) else (expected,)
        if status not in allowed:
            raise AssertionError(f"{what}: status {status}, expected {expected}: {answer[:200]!r}")
        assert b"vlens-serve-" not in answer, f"{what}: the answer names the temporary folder: {answer!r}"
    print(f"    {len(cases)} hostile requests refused")


def survives(server):
    """Clients that send nothing, or stop in the middle; a hundred of them at once."""
    idle = [server.connect() for _ in range(100)]
    deadline = time.monotonic() + 20
    while (status := server.get("readings")[0]) != 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    same(status, 503, "a request beside a hundred connections")
    for s in idle:
        s.close()
    deadline = time.monotonic() + 20
    while (status := server.get("readings")[0]) != 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    same(status, 200, "a request after them")
    before = len(server.left())
    with server.connect() as s:  # the rest of this picture never comes
        s.sendall(f"POST {server.path}picture HTTP/1.1\r\nHost: {server.host}\r\nContent-Length: 1000\r\n\r\nhalf".encode())
        time.sleep(0.3)
    deadline = time.monotonic() + 20
    while len(server.left()) > before and time.monotonic() < deadline:
        time.sleep(0.1)
    same(len(server.left()), before, "files after an upload that was given up")


def queues(server):
    """One question at a time, four more wait, the next is turned away; a waiting one can be cancelled."""
    body = json.dumps({"prompt": "word " * 120, "generate": 200}).encode()
    answers = [server.post("ask", body) for _ in range(8)]
    statuses = [status for status, _ in answers]
    same(statuses[:5], [202] * 5, "questions that are taken")
    same(statuses[-1], 503, "one too many")
    jobs = [answer["job"] for status, answer in answers if status == 202]
    for job in jobs:
        same(server.post(f"cancel?job={job}", b"")[0], 200, "cancel")
    ends = [server.wait(job)["state"] for job in jobs]
    same(ends[1:], ["cancelled"] * (len(jobs) - 1), "those that waited")


def stays_small(server, picture, n):
    """The same question again and again: resident memory after a warm start does not grow."""
    body = json.dumps({"prompt": PROMPT, "pictures": [picture], "generate": 4}).encode()
    sizes = []
    for i in range(n):
        status, answer = server.post("ask", body)
        same(status, 202, f"question {i}")
        same(server.wait(answer["job"])["state"], "done", f"question {i}")
        sizes.append(server.memory())
    grown = sizes[-1] - sizes[n // 3]
    print(f"    {n} questions: {sizes[n // 3] / MIB:.1f} MiB after a third, {sizes[-1] / MIB:.1f} MiB at the end")
    if grown > 4 * MIB:
        raise AssertionError(f"memory grew by {grown / MIB:.1f} MiB in {n - n // 3} questions")


def main():
    vlens, source, folder = sys.argv[1], pathlib.Path(sys.argv[2]).resolve(), pathlib.Path(sys.argv[3]) / "serve"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model, picture = source / "data/demo/model", (source / "data/demo/images/002.png").read_bytes()
    refused = subprocess.run([vlens, "serve", "--port", "0"], stderr=subprocess.PIPE)
    assert refused.returncode == 2 and b"--model is missing" in refused.stderr, refused.stderr
    server = Server(vlens, model, folder, "--max-upload", "2")
    try:
        status, answer = server.post("picture", picture)
        same((status, answer), (200, {"picture": 1, "width": 64, "height": 64}), "an upload")
        answers_like_view(server, vlens, source, answer["picture"])
        refuses(server, picture)
        same([f.name for f in server.left()], ["1"], "files after the hostile requests")
        survives(server)
        same(len(json.loads(server.get("readings")[1])), 1, "readings after the hostile requests")
        queues(server)
        stays_small(server, answer["picture"], 100)
        threading.Thread(target=server.post, args=("ask", json.dumps({"prompt": PROMPT}).encode())).start()
        time.sleep(0.1)
        taken, code, said = server.stop()
        same((code, said), (0, ""), "its end")
        print(f"    stopped within {taken:.2f} s")
        same(list(folder.glob("vlens-serve-*")), [], "temporary folders that are left")
    finally:
        server.process.kill()


if __name__ == "__main__":
    main()

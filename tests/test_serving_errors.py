"""The errors of predict.py for a wrong address, another kind of server, or a failing proxy."""

import json
import shutil
import socket
import ssl
import subprocess

import pytest
import serving_peers

from keras_googlenet import serving_client

GRPC = pytest.mark.peers("grpc", "tensorflow_serving")
REST_AND_GRPC = ["http", pytest.param("grpc", marks=GRPC)]
ANSWER = {"predictions": [{"classes": ["n02123045 tab\x1bby"], "scores": [0.75]}]}
NOBODY = "127.0.0.1:1"
FOREIGN = "answers, but not as TensorFlow Serving with a network of this project does"


@pytest.fixture(autouse=True)
def short_pauses_and_no_proxies(monkeypatch):
    monkeypatch.setattr(serving_client, "FIRST_PAUSE", 0.01)
    for name in ("http", "https", "all", "grpc", "no", "no_grpc"):
        for variable in (f"{name}_proxy", f"{name}_PROXY".upper()):
            monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def ask(run_script, image_folder):
    """Returns what predict.py prints about one image, which must fail in one printable line."""

    def ask(address, *flags):
        image = image_folder / "val" / "star" / "0.jpg"
        outcome = run_script("predict.py", "--server", address, image, "--timeout", 5, *flags)
        assert outcome.status == 2 and not outcome.out.strip()
        (line,) = outcome.err.splitlines()
        assert line.isprintable()
        return line

    return ask


def says(first=b"", then=b""):
    """What a server does that greets, answers whatever comes, and says no more."""

    def talk(connection):
        connection.sendall(first)
        connection.recv(65536)
        connection.sendall(then)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    return talk


def http_answer(status, body=b"", headers=b""):
    first = b"HTTP/1.1 %d \x1b[31mred\r\nConnection: close\r\n" % status
    headers += b"Content-Length: %d\r\n" % len(body)
    return says(then=first + headers + b"\r\n" + body)


ANOTHER = "uses another protocol, not {}; check the address and its port."
GREETINGS = {
    "ssh": says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "smtp": says(b"220 mail.example.org ESMTP\r\n"),
    "redis": says(then=b"-ERR unknown command\r\n"),
    "escapes": says(b"\x1b]0;title\x07\x1b[2J\x9b31m\n" * 9),
}


@pytest.mark.parametrize("scheme", REST_AND_GRPC)
@pytest.mark.parametrize("name", GREETINGS)
def test_a_port_of_another_protocol(ask, scheme, name):
    with serving_peers.socket_server(GREETINGS[name]) as host:
        line = ask(f"{scheme}://{host}")
    own = {"http": "HTTP", "grpc": "gRPC"}[scheme]
    assert line == f"predict.py: error: {scheme}://{host} {ANOTHER.format(own)}"


@pytest.mark.peers("grpc")
def test_rest_asks_a_port_of_grpc(ask):
    from concurrent import futures

    import grpc

    server = grpc.server(futures.ThreadPoolExecutor(1))
    host = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    assert ask(f"http://{host}").endswith(f"uses gRPC, not HTTP; give grpc://{host}.")
    assert ask(f"https://{host}").endswith("does not speak TLS; give http:// in place of https://.")
    server.stop(None).wait()


@GRPC
def test_grpc_asks_a_port_of_rest(ask):
    with serving_peers.http_server(lambda *_: (200, ANSWER)) as address:
        host = address.removeprefix("http://")
        assert ask(f"grpc://{host}").endswith(f"uses HTTP, not gRPC; give {address}.")
    with serving_peers.socket_server(http_answer(400)) as host:  # most others answer HTTP/1.1
        assert ask(f"grpc://{host}").endswith(f"uses HTTP, not gRPC; give http://{host}.")


@GRPC
def test_grpc_asks_another_service_of_grpc(ask):
    from concurrent import futures

    import grpc

    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert FOREIGN in ask(f"grpc://127.0.0.1:{port}")
    server.stop(None).wait()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 9 -subj /CN=localhost -keyout key"
    names = ["-out", "certificate", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command.split(), *names], cwd=folder, check=True, capture_output=True)
    return folder


def test_tls(ask, certificate, run_script, image_folder, monkeypatch):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "certificate", certificate / "key")

    def talk(connection):
        with context.wrap_socket(connection, server_side=True) as wrapped:
            http_answer(200, json.dumps(ANSWER).encode())(wrapped)

    with serving_peers.socket_server(talk) as host:
        address = f"https://{host}".replace("127.0.0.1", "localhost")
        line = ask(address)
        assert "has a certificate that is not trusted (self-signed certificate)" in line
        assert line.endswith("or name the file of its authority in REQUESTS_CA_BUNDLE.")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "nothing"))
        assert "does not answer (Could not find a suitable TLS CA" in ask(address)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate / "certificate"))
        image = image_folder / "val" / "star" / "0.jpg"
        outcome = run_script("predict.py", "--server", address, image)
    assert outcome.status == 0, outcome.err
    assert outcome.out.splitlines() == [str(image), "  75.00%  tab by"]  # no byte 27


ELSEWHERE = b"Location: https://me:secret@other:9/v1/models/googlenet:predict\r\n"
TLS_PORT = b"<h1>400 The plain HTTP request was sent to HTTPS port</h1>"


@pytest.mark.parametrize(
    ("talk", "said"),
    [
        (http_answer(500, b"\x1b[31m"), "refuses: HTTP status 500 Internal Server Error."),
        (http_answer(401), "refuses: HTTP status 401 Unauthorized."),
        (http_answer(404, b"<html>"), "404 Not Found; check the address and the model's name."),
        (http_answer(400, b"<html>"), "refuses: HTTP status 400 Bad Request."),
        (http_answer(400, TLS_PORT), "uses TLS, not HTTP; give https://127.0.0.1:"),
        (says(then=b"\x15\x03\x01\0\2\2\x46"), "uses TLS, not HTTP; give https://127.0.0.1:"),
        (http_answer(307, b"", ELSEWHERE), "redirects to https://other:9; give that address."),
        (http_answer(302, b"", b"Location: http://[::1\r\n"), "does not answer (Invalid IPv6 URL)"),
        (http_answer(503, b"", b"Retry-After: soon\r\n"), "does not answer (Invalid Retry-After"),
        (http_answer(400, b'{"error": "\\u001b[2Jbad\\nimage"}'), "refuses: [2Jbad image."),
        (http_answer(400, b'{"error": "%s"}' % (b"word " * 9999)), "word word …"),
        (http_answer(200, b"\x1b[31m<html>"), FOREIGN),
        (http_answer(200, b"[" * 200_000), FOREIGN),
        (
            http_answer(200, b"abc", b"Content-Encoding: gzip\r\n"),
            "does not answer (Error -3 while",
        ),
        (says(then=b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200), "(got more than 100 headers)"),
    ],
)
def test_what_a_web_server_answers(ask, talk, said):
    with serving_peers.socket_server(talk) as host:
        assert said in ask(f"http://{host}")


def test_an_answer_without_an_end_is_not_read_to_the_end(ask):
    sent = []

    def talk(connection):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while len(sent) < 2000:
            connection.sendall(b"x" * 65536)
            sent.append(65536)

    with serving_peers.socket_server(talk) as host:
        assert FOREIGN in ask(f"http://{host}")
    assert sum(sent) < 20 * serving_client.LONGEST_ANSWER


@pytest.mark.parametrize("scheme", ["https", *REST_AND_GRPC])
def test_an_address_without_a_server(ask, scheme):
    for host in ("[::1]:1", f"me:secret@{NOBODY}", "nowhere.invalid:1"):
        line = ask(f"{scheme}://{host}")
        assert "does not answer (" in line and "secret" not in line and "proxy" not in line


PROXIES = [("http", name) for name in ("http_proxy", "HTTP_PROXY", "all_proxy")]
PROXIES += [("https", name) for name in ("https_proxy", "ALL_PROXY")]
PROXIES += [pytest.param("grpc", name, marks=GRPC) for name in ("http_proxy", "grpc_proxy")]


@pytest.mark.parametrize(("scheme", "variable"), PROXIES)
@pytest.mark.parametrize("status", [403, 407, 502, None])
def test_a_proxy_that_fails(ask, monkeypatch, scheme, variable, status):
    with serving_peers.socket_server(http_answer(status or 200)) as host:
        proxy = host if status else NOBODY
        monkeypatch.setenv(variable, f"http://me:secret@{proxy}")
        line = ask(f"{scheme}://127.0.0.2:1")
    assert f", asked through http://{proxy}, the proxy in {variable}; check that" in line
    assert line.endswith(", or add 127.0.0.2 to no_proxy.")
    assert str(status) in line if status else "Connection refused" in line
    assert "secret" not in line


@pytest.mark.parametrize("scheme", REST_AND_GRPC)
def test_a_proxy_is_not_blamed_where_none_is_asked(ask, monkeypatch, scheme):
    monkeypatch.setenv("http_proxy", f"http://{NOBODY}")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    with serving_peers.socket_server(GREETINGS["ssh"]) as host:
        assert ask(f"{scheme}://{host}").endswith(" check the address and its port.")


@GRPC
@pytest.mark.parametrize(
    ("proxy", "exception", "asked"),
    [("http", "NO_PROXY", True), ("http", "no_grpc_proxy", False), ("socks5", "NO_PROXY", False)],
)
def test_grpc_has_its_own_rules_for_proxies(ask, monkeypatch, proxy, exception, asked):
    monkeypatch.setenv("http_proxy", f"{proxy}://{NOBODY}")
    monkeypatch.setenv(exception, "127.0.0.1")
    with serving_peers.socket_server(GREETINGS["ssh"]) as host:
        line = ask(f"grpc://{host}")
    assert ("Connection refused" in line, "no_proxy" in line) == (asked, asked)


def test_a_proxy_is_not_blamed_for_what_the_server_says(ask, monkeypatch):
    with serving_peers.socket_server(http_answer(400, b'{"error": "bad image"}')) as host:
        monkeypatch.setenv("http_proxy", f"http://{host}")
        assert ask("http://127.0.0.2:1").endswith("refuses: bad image.")


@pytest.mark.parametrize("address", ["{}/", "{}/behind/a/proxy", "{}/behind/a/proxy//"])
def test_a_path_before_that_of_the_model(run_script, image_folder, address):
    asked = []

    def answer(path, body):
        asked.append(path)
        return 200, ANSWER

    image = image_folder / "val" / "star" / "0.jpg"
    with serving_peers.http_server(answer) as host:
        outcome = run_script("predict.py", "--server", address.format(host), image)
    assert outcome.status == 0
    prefix = "/behind/a/proxy" if "behind" in address else ""
    assert asked == [f"{prefix}/v1/models/googlenet:predict"]


@GRPC
@pytest.mark.parametrize(("status", "said"), [(b"413", "0.jpg: {} refuses: "), (b"404", FOREIGN)])
def test_what_a_web_server_answers_by_http_2(ask, status, said):
    """Frames by hand: SETTINGS, then HEADERS with `:status` that end the stream."""
    settings, headers = b"\0\0\0\4\0\0\0\0\0", b"\0\0\5\1\5\0\0\0\1\x08\3" + status

    def talk(connection):
        connection.sendall(settings)
        received = b""
        while b"PredictionService/Predict" not in received:
            received += connection.recv(65536)
        connection.sendall(headers)
        while connection.recv(65536):
            pass

    with serving_peers.socket_server(talk) as host:
        assert said.format(f"grpc://{host}") in ask(f"grpc://{host}")

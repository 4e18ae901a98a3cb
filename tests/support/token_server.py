"""An issuer of tokens: its configuration, keys, and tokens; it may be out of order."""

import json
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

AUDIENCE = "fleet"
PROBLEMS = ("refuses", "hangs", "endless", "nonsense", "no keys", "redirects")


class Issuer:
    """What a test knows of the issuer, and may change."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: list[ECKey | RSAKey] = [ec_key("first")]
        self.listed: list[Any] | None = None
        """What it says its keys are, in place of them."""
        self.problem: str | None = None
        self.asked = 0
        """How often its keys were fetched."""
        self.keys_text: bytes | None = None
        """What it says in place of a key set."""
        self.keys_url: Any = f"{url}/keys"

    def token(self, *, key: Any = None, alg: str = "ES256", **claims: Any) -> str:
        """A token by its first key, or another one; a claim of None is left out."""
        key = key or self.keys[0]
        now = int(time.time())
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 600}
        chosen = {name: it for name, it in {**usual, **claims}.items() if it is not None}
        head = {"alg": alg} if key.kid is None else {"alg": alg, "kid": key.kid}
        return jwt.encode(head, chosen, key, algorithms=[alg])

    def signed(self, claims: bytes, **head: Any) -> str:
        """Any bytes as claims, rightly signed by its first key; `head` has further fields."""
        chosen = {"alg": "ES256", "kid": self.keys[0].kid, **head}
        first, second = (
            urlsafe_b64encode(each).rstrip(b"=") for each in (json.dumps(chosen).encode(), claims)
        )
        text = first + b"." + second
        signature = JWSRegistry.algorithms["ES256"].sign(text, self.keys[0])
        return (text + b"." + urlsafe_b64encode(signature).rstrip(b"=")).decode()

    def claims(self, **odd: str) -> bytes:
        """The usual claims, with others as JSON text, which need not be valid."""
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "ann", "exp": int(time.time()) + 600}
        texts = {name: json.dumps(it) for name, it in usual.items()} | odd
        fields = ",".join(f'"{name}":{it}' for name, it in texts.items())
        return f"{{{fields}}}".encode()

    def settings(self, **more: Any) -> dict[str, Any]:
        """Those of a shim that trusts it."""
        return {"oidc_issuer": self.url, "oidc_audience": AUDIENCE, "oidc_refresh_s": 0.05, **more}


def ec_key(kid: str | None) -> ECKey:
    fields = {} if kid is None else {"kid": kid}
    return ECKey.generate_key("P-256", {**fields, "use": "sig"}, private=True)


@contextmanager
def token_server() -> Iterator[Issuer]:
    class Handler(_Handler):  # of this server alone: there may be several
        pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    issuer = Handler.issuer = Issuer(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield issuer
    finally:
        issuer.problem = None
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    issuer: Issuer

    def do_GET(self) -> None:
        issuer = self.issuer
        if self.path == "/keys":
            issuer.asked += 1
            keys = [] if issuer.problem == "no keys" else issuer.keys
            told = issuer.listed or [key.as_dict(private=False) for key in keys]
            found: dict[str, Any] = {"keys": told}
        else:
            found = {"issuer": issuer.url, "jwks_uri": issuer.keys_url}
        told_bytes = json.dumps(found).encode()
        if self.path == "/keys" and issuer.keys_text is not None:
            told_bytes = issuer.keys_text
        self._answer(told_bytes)

    def _answer(self, data: bytes) -> None:
        problem = self.issuer.problem
        while self.issuer.problem == "hangs":
            time.sleep(0.05)
        self.send_response({"refuses": 503, "redirects": 302}.get(problem or "", 200))
        self.send_header("Location", "http://127.0.0.1:1/")
        self.end_headers()
        if problem == "nonsense":
            data = b"[1, 2"
        try:
            self.wfile.write(data)
            while self.issuer.problem == "endless":
                self.wfile.write(b" " * 65536)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Say nothing."""

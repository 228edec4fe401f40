"""A schema registry for tests: the part of Confluent's documented HTTP API that clients of events use.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html. Ids belong to schemas (the same schema
in two subjects has one id), versions to subjects. It does not check compatibility: a subject in `closed` takes no
further schema, and says so as a registry does whose rules forbid one. Protobuf is kept serialised, and given so
where `format=serialized` asks for it; without, a registry gives the text of a .proto file.
"""

from __future__ import annotations

import base64
import json
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

with warnings.catch_warnings():
    # What the client imports turns a warning of its own on; imported here, it is quiet in all tests.
    import_module("authlib.deprecate")
    warnings.simplefilter("ignore")
    import_module("confluent_kafka.schema_registry")


class SchemaRegistry:
    """`url`, `requests` (method and path, in order), `account` (None: everybody may ask), `stop()`, `start()`."""

    def __init__(self, account: str | None = None) -> None:
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, list[int]] = {}
        self.closed: set[str] = set()
        self.requests: list[str] = []
        self.account, self.port = account, 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; again on the same port after `stop`."""
        registry = self

        class Handler(_Handler):
            schemas = registry

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Refuse connections; what is registered stays."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, subject: str, schema: Any, kind: str = "AVRO", references: Any = ()) -> int:
        """Register a schema without HTTP; Avro as plain data or text, Protobuf as base64."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        return self.register(subject, {"schema": text, "schemaType": kind, "references": list(references)})

    def register(self, subject: str, body: dict[str, Any]) -> int:
        wanted = {
            "schema": body["schema"], "schemaType": body.get("schemaType") or "AVRO",
            "references": body.get("references") or [],
        }  # fmt: skip
        known = next((i for i, s in self.schemas.items() if s == wanted), None)
        schema_id = known if known is not None else len(self.schemas) + 1
        versions = self.subjects.get(subject, [])
        if schema_id not in versions and subject in self.closed:
            raise _Refused(409, 409, "Schema being registered is incompatible with an earlier schema")
        self.schemas[schema_id] = wanted
        if schema_id not in versions:
            self.subjects.setdefault(subject, []).append(schema_id)
        return schema_id

    def answer(self, method: str, target: str, body: dict[str, Any]) -> dict[str, Any]:
        url = urlsplit(target)
        form = parse_qs(url.query).get("format", [""])[0]
        match [unquote(part) for part in url.path.strip("/").split("/")], method:
            case ["schemas", "ids", number], "GET":
                return self._schema(int(number), form)
            case ["subjects", subject, "versions"], "POST":
                return {"id": self.register(subject, body)}
            case ["subjects", subject, "versions", version], "GET":
                return self._version(subject, version, form)
            case ["subjects", subject], "POST":
                return self._lookup(subject, body)
        raise _Refused(404, 404, "HTTP 404 Not Found")

    def _schema(self, schema_id: int, form: str) -> dict[str, Any]:
        if schema_id not in self.schemas:
            raise _Refused(404, 40403, f"Schema {schema_id} not found")
        schema = self.schemas[schema_id]
        if schema["schemaType"] != "PROTOBUF":
            if form:
                raise _Refused(422, 42200, f"Unsupported format {form}")
            return {k: v for k, v in schema.items() if k != "schemaType" or v != "AVRO"}
        return schema if form == "serialized" else {**schema, "schema": 'syntax = "proto3"; // the text of the file'}

    def _version(self, subject: str, version: str, form: str) -> dict[str, Any]:
        ids = self.subjects.get(subject)
        if ids is None:
            raise _Refused(404, 40401, f"Subject '{subject}' not found.")
        number = len(ids) if version == "latest" else int(version)
        if not 0 < number <= len(ids):
            raise _Refused(404, 40402, f"Version {version} not found.")
        schema_id = ids[number - 1]
        return {"subject": subject, "version": number, "id": schema_id, **self._schema(schema_id, form)}

    def _lookup(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        for number, schema_id in enumerate(self.subjects.get(subject, []), 1):
            if self.schemas[schema_id]["schema"] == body["schema"]:
                return {"subject": subject, "version": number, "id": schema_id, **self.schemas[schema_id]}
        raise _Refused(404, 40403, "Schema not found")


class _Refused(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    schemas: SchemaRegistry

    def do_GET(self) -> None:
        self._do({})

    def do_POST(self) -> None:
        self._do(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}"))

    def _do(self, body: dict[str, Any]) -> None:
        self.schemas.requests.append(f"{self.command} {self.path}")
        status, said = 200, {}
        try:
            self._check_account()
            said = self.schemas.answer(self.command, self.path, body)
        except _Refused as refused:
            status, said = refused.status, {"error_code": refused.code, "message": refused.message}
        data = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _check_account(self) -> None:
        wanted = self.schemas.account
        if wanted is not None:
            given = self.headers.get("Authorization", "").removeprefix("Basic ")
            if base64.b64decode(given).decode() != wanted:
                raise _Refused(401, 40101, "Unauthorized")

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the tests' stderr."""

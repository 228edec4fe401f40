"""What a registry's answers mean for events: fetched once and kept, missing, or to be waited for."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from headwater.errors import MissingExtra, RegistryUnreachable, UsageError
from headwater.events.schemas import Schema, Schemas
from headwater.repository import load_repository
from tests.schema_registry import SchemaRegistry

TEXT = '{"type": "record", "name": "R", "fields": []}'


def test_a_schema_is_fetched_once_and_outlives_its_registry(own_registry: SchemaRegistry) -> None:
    number, schemas = own_registry.add("s", TEXT), Schemas({"url": own_registry.url})
    assert schemas.get(number) == Schema(1, "AVRO", TEXT)
    assert own_registry.requests == ["GET /schemas/ids/1"]
    own_registry.stop()
    assert schemas.get(number) == Schema(1, "AVRO", TEXT)
    own_registry.start()


def test_an_id_that_the_registry_does_not_have_is_none_and_asked_for_once(own_registry: SchemaRegistry) -> None:
    schemas = Schemas({"url": own_registry.url})
    assert [schemas.get(9), schemas.get(9)] == [None, None]
    assert own_registry.requests == ["GET /schemas/ids/9"]


def test_a_registry_that_is_away_is_no_answer_and_none_is_remembered(own_registry: SchemaRegistry) -> None:
    number, schemas = own_registry.add("s", TEXT), Schemas({"url": own_registry.url})
    own_registry.stop()
    with pytest.raises(
        RegistryUnreachable, match=rf"^The schema registry {own_registry.url} gives no answer \(.+\)\.$"
    ):
        schemas.get(number)
    own_registry.start()
    assert schemas.get(number) is not None


def test_a_404_that_is_no_registrys_is_no_answer(own_registry: SchemaRegistry) -> None:
    with pytest.raises(RegistryUnreachable, match=r"HTTP 404: .*: check its address"):
        Schemas({"url": f"{own_registry.url}/elsewhere"}).get(1)


def test_something_else_at_the_address_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.listen()
        with pytest.raises(RegistryUnreachable, match="gives no answer"):
            Schemas({"url": f"http://127.0.0.1:{server.getsockname()[1]}", "timeout": "0.1"}).get(1)


def test_a_wrong_password_is_said_and_never_shown() -> None:
    registry = SchemaRegistry(account="worker:right")
    number = registry.add("s", TEXT)
    assert Schemas({"url": registry.url, "basic.auth.user.info": "worker:right"}).get(number) is not None
    with_account = registry.url.replace("://", "://worker:wrong@")
    for settings in ({"url": registry.url, "basic.auth.user.info": "worker:wrong"}, {"url": with_account}):
        with pytest.raises(RegistryUnreachable, match=r"refuses our account \(HTTP 401\)") as error:
            Schemas(settings).get(number)
        assert "wrong" not in str(error.value)
    registry.stop()


def test_what_a_schema_refers_to_is_fetched_with_it(own_registry: SchemaRegistry) -> None:
    own_registry.add("a", '"a"')
    own_registry.add("b", '"b"', references=[{"name": "A", "subject": "a", "version": 1}])
    number = own_registry.add("c", '"c"', references=[{"name": "B", "subject": "b", "version": 1}])
    assert Schemas({"url": own_registry.url}).get(number) == Schema(number, "AVRO", '"c"', (("A", '"a"'), ("B", '"b"')))
    gone = own_registry.add("d", '"d"', references=[{"name": "A", "subject": "a", "version": 9}])
    assert Schemas({"url": own_registry.url}).get(gone) is None


def test_settings_that_the_client_does_not_know_are_a_wrong_use(own_registry: SchemaRegistry) -> None:
    with pytest.raises(UsageError, match=r"cannot be used with these settings: .*colour"):
        Schemas({"url": own_registry.url, "colour": "red"}).get(1)
    with pytest.raises(UsageError, match=r"schema\.registry\.url"):
        Schemas({}).get(1)


def test_settings_of_file_and_environment(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "feature_store.yaml").write_text(
        "project: p\nheadwater:\n  schema.registry.url: http://file:8081\n  schema.registry.basic.auth.user.info: a:b\n"
    )
    assert load_repository(tmp_path).need_schema_registry() == {
        "url": "http://file:8081",
        "basic.auth.user.info": "a:b",
    }
    monkeypatch.setenv("HEADWATER_SCHEMA_REGISTRY_URL", "http://env:8081")
    monkeypatch.setenv("HEADWATER_SCHEMA_REGISTRY_SSL_CA_LOCATION", "/ca.pem")
    assert load_repository(tmp_path).need_schema_registry() == {
        "url": "http://env:8081", "basic.auth.user.info": "a:b", "ssl.ca.location": "/ca.pem",
    }  # fmt: skip
    (tmp_path / "feature_store.yaml").write_text("project: p\n")
    monkeypatch.delenv("HEADWATER_SCHEMA_REGISTRY_URL")
    with pytest.raises(UsageError, match=r"schema\.registry\.url: .*HEADWATER_SCHEMA_REGISTRY_URL"):
        load_repository(tmp_path).need_schema_registry()


@pytest.mark.parametrize(
    ("package", "format"), [("fastavro", "avro"), ("httpx", "avro"), ("google.protobuf", "protobuf")]
)
def test_a_missing_package_is_named_with_its_extra(package: str, format: str) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
from headwater.events.admission import Admission
from headwater.events.schemas import Schemas
from headwater.plans.plan import Field, Source
source = Source("s", "s", "at", None, 1, (Field("at", "timestamp"),), format={format!r})
try:
    Admission(source, Schemas({{"url": "http://127.0.0.1:1"}}))
except Exception as error:
    print(type(error).__name__, error)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith(
        f"{MissingExtra.__name__} Reading {format.capitalize()} events needs the Python package '{package}'"
    )
    assert f"pip install 'headwater[{format}]'" in said

"""A feature repository on disk: where its files, addresses and local state are.

Reads `feature_store.yaml` without Feast, so that workers, servers and `headwater up`
start fast. Addresses that the file leaves out are those that `headwater up` started for
this repository; their record is `.headwater/servers.json` beside the file.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from headwater.errors import Unreachable, UsageError

CONFIG = "feature_store.yaml"
_SCHEMAS = "schema.registry."
_SCHEMAS_ENV = "HEADWATER_SCHEMA_REGISTRY_"


@dataclass(frozen=True)
class Repository:
    """A repository's configuration, parsed once at the border.

    Attributes:
        root: the folder of feature_store.yaml, absolute.
        kafka: librdkafka settings, `bootstrap.servers` included where it is known.
        schema_registry: the registry's `url` and what else Confluent's client takes; empty where none is named.
        redis_url: None where no address is given and nothing was started.
        lake: path or object store URL of the lake.
    """

    root: Path
    project: str
    registry: str
    kafka: dict[str, str]
    redis_url: str | None
    lake: str
    engine: str = "local"
    settings: dict[str, Any] = field(default_factory=dict)
    schema_registry: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """The folder of local state (servers, lake, registry by default); may not exist yet."""
        return self.root / ".headwater"

    def need_redis(self) -> str:
        """The Redis URL. Raises Unreachable, which says how to get one, where none is given and none was started."""
        if self.redis_url:
            return self.redis_url
        raise Unreachable(
            f"No Redis runs for the repository {self.root}. Start local servers with 'headwater up', "
            f"or set 'redis: redis://HOST:PORT/0' under online_store in {CONFIG}."
        )

    def need_kafka(self) -> dict[str, str]:
        """librdkafka settings with `bootstrap.servers`. Raises Unreachable, as `need_redis`, where there is none."""
        if self.kafka.get("bootstrap.servers"):
            return dict(self.kafka)
        raise Unreachable(
            f"No Kafka runs for the repository {self.root}. Start local servers with 'headwater up', "
            f"or set 'kafka: {{bootstrap.servers: HOST:PORT}}' under headwater in {CONFIG}."
        )

    def need_schema_registry(self) -> dict[str, str]:
        """The schema registry's settings with `url`, or a UsageError that says how to name one."""
        if self.schema_registry.get("url"):
            return dict(self.schema_registry)
        raise UsageError(
            f"No schema registry for the repository {self.root}, and a source is in Avro or Protobuf. Set "
            f"'schema.registry.url: http://HOST:8081' under headwater in {CONFIG}, or the environment variable "
            f"{_SCHEMAS_ENV}URL."
        )


def find_repository(start: str | os.PathLike[str] | None = None) -> Path:
    """The repository's folder: the one given (or the folder of the file given), else `.`, else `./feature_repo`.

    Raises:
        UsageError: no feature_store.yaml there.
    """
    given = Path(start) if start is not None else None
    if given is not None and given.name == CONFIG:
        given = given.parent
    if given is not None and not given.is_dir():
        raise UsageError(f"No feature repository: there is no folder {given.absolute()}. Name another with -C REPO.")
    candidates = [given] if given is not None else [Path("."), Path("feature_repo")]
    for folder in candidates:
        if (folder / CONFIG).is_file():
            return folder.resolve()
    looked = " and ".join(str(c.resolve()) for c in candidates)
    raise UsageError(f"No feature repository: there is no {CONFIG} in {looked}. Name one with -C REPO.")


def load_repository(start: str | os.PathLike[str] | None = None) -> Repository:
    """Parse feature_store.yaml and the record of local servers.

    Raises:
        UsageError: no repository, or a file that is not what it should be; the message names the key.
    """
    root = find_repository(start)
    try:
        config = yaml.safe_load((root / CONFIG).read_text())
    except yaml.YAMLError as error:
        raise UsageError(f"{root / CONFIG} is not valid YAML: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("project"), str):
        raise UsageError(f"{root / CONFIG}: expected a mapping with 'project: NAME', got {config!r}.")
    servers = read_servers(root)
    online, offline, own = (_section(root, config, name) for name in ("online_store", "offline_store", "headwater"))
    kafka = {str(k): str(v) for k, v in (own.get("kafka") or {}).items()}
    if servers.get("bootstrap_servers"):
        kafka.setdefault("bootstrap.servers", servers["bootstrap_servers"])
    return Repository(
        root=root,
        project=config["project"],
        registry=_registry(root, config.get("registry")),
        kafka=kafka,
        redis_url=online.get("redis") or servers.get("redis_url"),
        lake=_place(root, offline.get("lake") or ".headwater/lake"),
        engine=str(offline.get("engine") or "local"),
        settings=own,
        schema_registry=_schema_registry(own),
    )


def read_servers(root: Path) -> dict[str, Any]:
    """What `headwater up` started for this repository; empty where nothing runs."""
    try:
        record: dict[str, Any] = json.loads((root / ".headwater" / "servers.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return record


def _section(root: Path, config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name) or {}
    if isinstance(value, str):
        return {"type": value}
    if not isinstance(value, dict):
        raise UsageError(f"{root / CONFIG}: expected a mapping under '{name}', got {value!r}.")
    return value


def _schema_registry(own: dict[str, Any]) -> dict[str, str]:
    """Settings with the field's usual names; HEADWATER_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO is one of the environment."""
    found = {k.removeprefix(_SCHEMAS): str(v) for k, v in own.items() if str(k).startswith(_SCHEMAS)}
    given = {k.removeprefix(_SCHEMAS_ENV): v for k, v in os.environ.items() if k.startswith(_SCHEMAS_ENV) and v}
    return found | {k.lower().replace("_", "."): v for k, v in given.items()}


def _registry(root: Path, value: Any) -> str:
    path = value.get("path") if isinstance(value, dict) else value
    return _place(root, str(path or ".headwater/registry.db"))


def _place(root: Path, text: str) -> str:
    return text if "://" in text else str((root / text).resolve())

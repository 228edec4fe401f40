"""A real broker that takes nothing but SASL/SCRAM over TLS, with certificates of its own."""

from __future__ import annotations

import datetime
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headwater.embedded.kafka_broker import answers_as_kafka
from headwater.embedded.kafka_jars import find_java, kafka_jars
from headwater.embedded.processes import free_port, launch, stop, wait_until_ready

USER, PASSWORD = "headwater", "over-tls"


class SecureKafka:
    """`settings` are what `headwater.kafka` of feature_store.yaml has to say; `stranger` is another authority's file."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.stranger = _certificate(folder / "stranger")[0]
        self._certificate, pem = _certificate(folder / "broker")
        port, inner, controller = free_port(), free_port(), free_port()
        properties = folder / "server.properties"
        properties.write_text(_properties(folder / "data", pem, port, inner, controller))
        run = [find_java(), "-Xmx384m", "-XX:+UseSerialGC", "-cp", f"{kafka_jars()}/*"]
        scram = f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"
        subprocess.run(
            [*run, "kafka.tools.StorageTool", "format", "--cluster-id=c2VjdXJlLWJyb2tlci1pZA", "-c", str(properties),
             "--add-scram", scram], capture_output=True, check=True,
        )  # fmt: skip
        self._process = launch("kafka", [*run, "kafka.Kafka", str(properties)], folder / "kafka.log")
        wait_until_ready(self._process, lambda: answers_as_kafka(inner), seconds=90)
        self.settings = {
            "bootstrap.servers": f"localhost:{port}", "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": USER, "sasl.password": PASSWORD, "ssl.ca.location": str(self._certificate),
        }  # fmt: skip

    def stop(self) -> None:
        """End the broker."""
        stop([self._process], patience=5)


def _properties(data: Path, pem: Path, port: int, inner: int, controller: int) -> str:
    settings = {
        "process.roles": "broker,controller", "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller}", "controller.listener.names": "CONTROLLER",
        "listeners": f"SASL_SSL://127.0.0.1:{port},INNER://127.0.0.1:{inner},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"SASL_SSL://localhost:{port},INNER://127.0.0.1:{inner}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,INNER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "INNER", "sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config":
            "org.apache.kafka.common.security.scram.ScramLoginModule required;",
        "ssl.keystore.type": "PEM", "ssl.keystore.location": pem, "log.dirs": data,
        "auto.create.topics.enable": "false", "offsets.topic.replication.factor": 1, "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
    }  # fmt: skip
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def _certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate of localhost that signs itself: its own file, and one with the key before it, both PEM."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "certificate.pem").write_bytes(pem)
    (folder / "keystore.pem").write_bytes(secret + pem)
    return folder / "certificate.pem", folder / "keystore.pem"

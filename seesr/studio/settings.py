"""What who runs the studio decides: `studio.toml` of the data folder, and the flags that stand above it."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from seesr.errors import OptionError
from seesr.options import validation_message
from seesr.studio.limits import OperatorLimits

FILE, DATABASE = "studio.toml", "studio.db"
"""Names in the data folder."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class StudioSettings(BaseModel):
    """The settings of a studio. Immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    """Address that it listens at."""
    port: int = Field(default=7860, ge=0, le=65535)
    """0: one that is free."""
    database: str | None = None
    """SQLAlchemy's URL of the store; None is `studio.db` in the data folder."""
    outputs: str | None = None
    """Folder, or URL of fsspec's, of the finished pictures; None is `outputs` in the data folder."""
    hosts: frozenset[str] = frozenset()
    """Names under which browsers reach it, beside those of loopback and addresses."""
    root_path: str = ""
    """Path below which a reverse proxy offers it, such as `/studio`."""
    trusted_proxies: tuple[Network, ...] = ()
    """Networks of the proxies whose X-Forwarded headers are believed."""
    cors_origins: frozenset[str] = frozenset()
    """Origins of pages elsewhere that may use the API, such as `https://page.example`."""
    webhook_allow: frozenset[str] = frozenset()
    """Hosts of the operator's own to which webhooks may be sent, also by http; others are public and of https."""
    session_hours: float = Field(default=168, gt=0)
    """How long somebody stays logged in."""
    limits: OperatorLimits = OperatorLimits()
    """Of the queue, of a job, and of what a user may have."""
    body_bytes: int = Field(default=256_000_000, ge=1)
    """Largest body of a request."""
    page: bool = True
    """Whether the page is offered, `/`."""
    sdapi: bool = True
    """Whether A1111's API is offered, `/sdapi/v1`."""
    log_prompts: bool = False
    """Whether the log holds prompts, and the sentences of errors, which may quote them."""
    log_requests: bool = False
    """Whether the log holds each request."""
    private_addresses: bool = False
    """Models are fetched from addresses of this machine and its network too, and by http."""

    @field_validator("hosts", "webhook_allow")
    @classmethod
    def _check_hosts(cls, hosts: frozenset[str]) -> frozenset[str]:
        for host in hosts:
            if not host or "*" in host or "/" in host or (":" in host and not is_address(host)):
                raise PydanticCustomError(
                    "host", "write a host's name alone, such as studio.example, not {host}", {"host": host}
                )
        return frozenset(host.lower() for host in hosts)

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, path: str) -> str:
        path = path.rstrip("/")
        if path and not path.startswith("/"):
            raise PydanticCustomError("root_path", "write it from its first slash on, such as /studio")
        return path

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: frozenset[str]) -> frozenset[str]:
        for origin in origins:
            parts = urlsplit(origin)
            if "*" in origin or parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin:
                message = "write each origin in full, such as https://page.example, not {origin}"
                raise PydanticCustomError("origin", message, {"origin": origin})
        return frozenset(origin.lower() for origin in origins)

    @classmethod
    def read(cls, path: Path, **flags: Any) -> Self:
        """The settings of a file, which need not exist, and of flags, which count more; None is one that was not given.

        Raises:
            OptionError: the file is no TOML, or a setting is unknown or invalid; the message names it.
        """
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            values = {}
        except (OSError, ValueError) as error:
            raise OptionError(f"{path} cannot be read as TOML ({error}); correct it.") from None
        try:
            return cls.model_validate(values | {name: value for name, value in flags.items() if value is not None})
        except ValidationError as error:
            raise OptionError(f"settings of the studio: {validation_message(error, cls)}") from None

    def store_url(self, data: Path) -> str:
        """SQLAlchemy's URL of the store."""
        return self.database or f"sqlite:///{data / DATABASE}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return is_loopback(self.host)

    def is_own_host(self, host: str) -> bool:
        """Whether a name, without port, is one of the studio's: no page elsewhere can have it resolve to this machine."""
        return host in LOOPBACK_NAMES or host in self.hosts or is_address(host)

    def is_trusted_proxy(self, client: str) -> bool:
        """Whether what an address says of the client before it is believed."""
        return is_address(client) and any(as_address(client) in network for network in self.trusted_proxies)


def as_address(text: str) -> Address:
    """An IP address; one of version 4 that is written as version 6 is of version 4.

    Raises:
        ValueError: it is none.
    """
    address = ipaddress.ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str) -> bool:
    """Whether an address, or `localhost`, is of this machine alone."""
    return host == "localhost" or (is_address(host) and as_address(host).is_loopback)


def is_address(text: str) -> bool:
    """Whether a text is an IP address."""
    try:
        as_address(text)
    except ValueError:
        return False
    return True

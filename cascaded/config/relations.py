"""What one setting asks of another: names that must exist, bounds that must agree."""

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

from cascaded import _core
from cascaded.config.defaults import bounds_of
from cascaded.config.kinds import AMOUNT
from cascaded.config.limits import check_limits
from cascaded.config.mistakes import KeyPath, Report, looks_secret, quoted_key, shown
from cascaded.config.schema import (
    LADDER_PREFIX,
    MAX_SOCKET_PATH_BYTES,
    PER_MTOK,
    PRICED_PARTS,
    Config,
    Embedded,
    Hooks,
    Ladder,
    LiteLLM,
    LocalEmbeddings,
    Model,
    OpenAICompatible,
    Provider,
    Upstream,
)
from cascaded.config.secrets import is_literal, unreadable
from cascaded.config.toml import Node

MIN_TCP_KEY_CHARS: Final = 16
MAX_SHOWN_CHAIN: Final = 8
MAX_PORT: Final = 65_535
LOOPBACK: Final = "127.0.0.1"
_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\s\[\]]+):([0-9]{1,5})")
_CONNECTION = re.compile(r"postgres(ql)?://|[a-z_]+\s*=")
"""A URI, or `keyword = value`, as libpq reads them."""
_SENSITIVE_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"}
)
_OUR_HEADERS = frozenset(
    {"connection", "content-length", "content-type", "host", "transfer-encoding", "upgrade"}
)
HOOK_URLS = ("budget_check", "model_filter", "budget_warning")
_ENDPOINTS = ("/chat/completions", "/messages", "/responses")
ReadFile = Callable[[Path], bytes]


def check_relations(config: Config, document: Node, report: Report, read_file: ReadFile) -> None:
    """Note every mistake that no setting shows alone. `config` is complete (see `defaults`)."""
    _Relations(config, document, report, read_file).check()


class _Relations:
    def __init__(self, config: Config, document: Node, report: Report, read_file: ReadFile) -> None:
        self._config = config
        self._document = document
        self._read_file = read_file
        self._report = report
        # A name counts even where its table has mistakes: those are told already.
        self._providers = self._names("providers", config.providers)
        self._models = self._names("models", config.models)
        self._ladders = self._names("ladders", config.ladders)

    def check(self) -> None:
        self._check_server()
        if self._config.preset and not self._models:
            self._report.add(
                ("preset",),
                f"{shown(self._config.preset)} brings no models of its own, and none are named",
                "tables [providers.NAME], [models.NAME] and [ladders.NAME]",
            )
        for name, provider in self._config.providers.items():
            if isinstance(provider, Upstream):
                self._check_upstream(("providers", name), provider)
            for lesser, greater in bounds_of(provider):
                self._check_order(("providers", name), provider, lesser, greater)
            if isinstance(provider, LiteLLM):
                self._check_litellm(("providers", name), provider)
        self._check_hooks(self._config.hooks)
        self._check_otel(self._config.otel.endpoint)
        for name, model in self._config.models.items():
            self._check_model(("models", name), model)
        for name, ladder in self._config.ladders.items():
            self._check_ladder(("ladders", name), ladder)
        self._check_domains()
        self._check_aliases()
        self._check_bounds()
        self._check_quality()
        self._check_database()
        check_limits(self._config, self._document, self._report)

    def _names(self, table: str, sound: Mapping[str, object]) -> set[str]:
        node = self._document.child(table)
        return {*sound, *(node.entries() if node else ())}

    # [server]

    def _check_server(self) -> None:
        server = self._config.server
        if len(server.socket.encode()) > MAX_SOCKET_PATH_BYTES:
            self._report.add(
                ("server", "socket"),
                f"{shown(server.socket)} is too long for a socket",
                f"at most {MAX_SOCKET_PATH_BYTES} bytes",
            )
        if server.tcp is not None:
            self._check_tcp(server.tcp)
        callers: dict[str, str] = {}
        for name, key in server.tcp_keys.items():
            path = ("server", "tcp_keys", name)
            if len(key.reveal()) < MIN_TCP_KEY_CHARS:
                self._report.add(
                    path,
                    "the key is too short to be safe",
                    f"at least {MIN_TCP_KEY_CHARS} characters",
                )
            other = callers.setdefault(key.reveal(), name)
            if other != name:
                self._report.add(path, f"it is the key of {shown(other)} too", "a key of its own")

    def _check_tcp(self, tcp: str) -> None:
        path = ("server", "tcp")
        expected = "a loopback address and a port"
        address = _ADDRESS.fullmatch(tcp)
        port = int(address[2]) if address else 0
        if not address or port > MAX_PORT:
            bare_port = tcp.removeprefix(":")
            near = f"{LOOPBACK}:{bare_port}" if bare_port.isdecimal() else f"{LOOPBACK}:8080"
            self._report.add(path, f"{shown(tcp)} is not host:port", expected, near)
        elif not is_loopback(address[1].strip("[]")):
            self._report.add(
                path,
                f"{shown(tcp)} is not only for this machine",
                expected,
                f"{LOOPBACK}:{port}",
            )
        keys = self._document.child("server")
        if not keys or not (keys.child("tcp_keys") or Node(1, "table", {})).entries():
            self._report.add(
                ("server", "tcp_keys"),
                "missing: over TCP every caller needs a key",
                'a table [server.tcp_keys] with NAME = "env:VARIABLE"',
            )

    # [providers.NAME]

    def _check_upstream(self, path: KeyPath, provider: Upstream) -> None:
        self._check_base_url((*path, "base_url"), provider)
        self._check_batches((*path, "batch_percent"), provider)
        if provider.api_keys and provider.api_key:
            self._report.add((*path, "api_keys"), "api_key is set too", "one of the two")
        if provider.proxy:
            self._check_proxy((*path, "proxy"), provider)
        for name, value in provider.headers.items():
            at = (*path, "headers", name)
            if name.lower() in _OUR_HEADERS:
                self._report.add(at, "this header is ours to set", "another header")
            elif is_literal(value) and _is_sensitive(name, value.reveal()):
                self._report.add(
                    at, "a secret may not stand in the file", '"env:NAME" or another reference'
                )
            elif name.lower() == "authorization" and provider.keys:
                self._report.add(at, "api_key sets this header already", "one of the two")
        if provider.ca_file:
            data = self._check_file((*path, "ca_file"), provider.ca_file)
            if data is not None and b"-----BEGIN" not in data:
                self._report.add(
                    (*path, "ca_file"), "it holds no certificate", "a file of certificates in PEM"
                )

    def _check_litellm(self, path: KeyPath, provider: LiteLLM) -> None:
        for table in ("environment", "options"):
            for name, value in getattr(provider, table).items():
                if is_literal(value) and _is_sensitive(name, value.reveal()):
                    self._report.add(
                        (*path, table, name),
                        "a secret may not stand in the file",
                        '"env:NAME" or another reference',
                    )

    def _check_batches(self, path: KeyPath, provider: Upstream) -> None:
        if not isinstance(provider, OpenAICompatible) or provider.batch_percent is None:
            return
        if provider.api_version is not None:
            message = "batches of Azure OpenAI are not used here"
            self._report.add(path, message, "it without api_version, or leave it out")

    def _check_base_url(self, path: KeyPath, provider: Upstream) -> None:
        text = provider.base_url
        azure = isinstance(provider, OpenAICompatible) and provider.api_version is not None
        example = "https://NAME.openai.azure.com" if azure else "https://api.openai.com/v1"
        expected = f"a URL such as {example}"
        url = _url(text, ("http", "https"))
        if not text:
            if not self._misspelt(path[:-1], provider):
                self._report.add(path, "missing", expected)
        elif url is None:
            self._report.add(path, "not a URL with http:// or https:// and a host", expected)
        elif url.username is not None or url.password is not None:
            self._report.add(path, "a URL may not carry a password", "api_key for the secret")
        elif url.query or url.fragment:
            self._report.add(path, "it has a query or a fragment", expected)
        elif azure and url.path.strip("/"):
            message = "with api_version it is the resource, without a path"
            self._report.add(path, message, expected, text.removesuffix(url.path))
        for endpoint in _ENDPOINTS:
            if url and url.path.rstrip("/").endswith(endpoint):
                near = text.rstrip("/").removesuffix(endpoint)
                self._report.add(path, f"{endpoint} is added to it", "where the API begins", near)

    def _misspelt(self, path: KeyPath, provider: Upstream) -> bool:
        """Whether the table has a key that is none."""
        node = self._document.child(str(path[0]))
        table = node.child(str(path[1])) if node else None
        return bool(table and table.entries().keys() - {*provider.__struct_fields__, "kind"})

    def _check_hooks(self, hooks: Hooks) -> None:
        for name in HOOK_URLS:
            asked = getattr(hooks, name)
            if asked is None:
                continue
            path, url = ("hooks", name, "url"), _url(asked.url, ("http", "https"))
            if url is None or url.fragment:
                expected = "a URL such as https://billing.internal/check"
                self._report.add(path, "not a URL with http:// or https:// and a host", expected)
            elif url.username is not None or url.password is not None:
                self._report.add(path, "a URL may not carry a password", "secret, which signs")

    def _check_otel(self, endpoint: str | None) -> None:
        if endpoint is None:
            return
        path, url = ("otel", "endpoint"), _url(endpoint, ("http", "https"))
        expected = "a URL such as http://127.0.0.1:4318"
        if url is None or url.query or url.fragment:
            self._report.add(path, "not a URL with http:// or https:// and a host", expected)
        elif url.username is not None or url.password is not None:
            self._report.add(path, "a URL may not carry a password", "a header for the secret")
        elif url.path.rstrip("/").endswith(("/v1/traces", "/v1/metrics")):
            self._report.add(path, "/v1/traces and /v1/metrics are added to it", expected)

    def _check_proxy(self, path: KeyPath, provider: Upstream) -> None:
        assert provider.proxy is not None
        url = _url(provider.proxy.reveal(), ("http", "https"))
        if url is None:
            self._report.add(
                path, "not the URL of an HTTP proxy", "a URL such as http://proxy:3128"
            )
        elif url.password is not None and is_literal(provider.proxy):
            self._report.add(
                path, "a secret may not stand in the file", '"env:NAME" or another reference'
            )
        elif provider.uds:
            self._report.add(path, "a Unix socket is not reached by proxy", "proxy or uds")

    def _check_order(self, path: KeyPath, provider: Provider, lesser: str, greater: str) -> None:
        low, high = getattr(provider, lesser), getattr(provider, greater)
        if low > high:
            at = (*path, lesser)
            self._report.add(at, f"{low:g} is longer than {greater}", f"at most {high:g}")

    def _check_file(self, path: KeyPath, name: str) -> bytes | None:
        try:
            return self._read_file(Path(name))
        except (OSError, ValueError) as fault:
            self._report.add(path, unreadable(Path(name), fault), "a file that the daemon may read")
            return None

    # [models.NAME]

    def _check_model(self, path: KeyPath, model: Model) -> None:
        if model.provider not in self._providers:
            self._unknown(
                (*path, "provider"),
                model.provider,
                self._providers,
                "providers",
            )
        provider = self._config.providers.get(model.provider)
        if model.api is not None and provider and not isinstance(provider, OpenAICompatible):
            self._report.add(
                (*path, "api"), f"'{model.provider}' has only one", "nothing, or another provider"
            )
        self._check_named(path, "fallback", model.fallback, "has been asked by then")
        self._check_named(path, "deployments", model.deployments, "is one of them already")
        self._check_price(path, model)
        self._check_reference(path, model)
        if model.vocabulary and model.tokenizer_file:
            self._report.add((*path, "tokenizer_file"), "vocabulary is set too", "one of the two")
        elif model.tokenizer_file:
            self._check_file((*path, "tokenizer_file"), model.tokenizer_file)
        window, most = model.context_window, model.max_output_tokens
        if window and most and most > window:
            self._report.add(
                (*path, "max_output_tokens"),
                f"{most} is more than context_window",
                f"at most {window}",
            )

    def _check_named(self, path: KeyPath, key: str, names: tuple[str, ...], itself: str) -> None:
        """Other models that a model names."""
        for index, name in enumerate(names):
            at = (*path, key, index)
            if name == path[-1]:
                self._report.add(at, f"{shown(name)} {itself}", "another model")
            elif name not in self._models:
                self._unknown(at, name, self._models, "models")

    def _check_price(self, path: KeyPath, model: Model) -> None:
        priced = self._set_keys(model, ("input", "output", *PRICED_PARTS), "request_usd")
        if model.free:
            for key in priced:
                self._report.add((*path, key), "a free model has no price", "free or a price")
        elif priced:
            self._check_both(path, model, "input", "output")
        elif isinstance(self._config.providers.get(model.provider), Embedded | LocalEmbeddings):
            self._report.add(
                (*path, "free"),
                "missing: no catalogue knows what a model on this machine costs",
                "free = true, or a price",
            )

    def _check_reference(self, path: KeyPath, model: Model) -> None:
        priced = self._set_keys(model, ("reference_input", "reference_output"), "reference_model")
        if not model.free:
            for key in priced:
                self._report.add((*path, key), "only for a free model", "free = true, or none")
        elif model.reference_model and len(priced) > 1:
            at = (*path, "reference_model")
            self._report.add(at, "reference prices are set too", "one of the two")
        elif priced and not model.reference_model:
            self._check_both(path, model, "reference_input", "reference_output")

    def _check_both(self, path: KeyPath, model: Model, *parts: str) -> None:
        for part in parts:
            key = part + PER_MTOK
            if getattr(model, key) is None:
                self._report.add((*path, key), "missing beside the other prices", AMOUNT)

    def _set_keys(self, model: Model, parts: tuple[str, ...], *keys: str) -> list[str]:
        every = (*(part + PER_MTOK for part in parts), *keys)
        return [key for key in every if getattr(model, key) is not None]

    # [ladders.NAME]

    def _check_ladder(self, path: KeyPath, ladder: Ladder) -> None:
        for index, rung in enumerate(ladder.rungs):
            if rung not in self._models:
                self._unknown((*path, "rungs", index), rung, self._models, "models")
        if not ladder.thresholds:
            return
        at = (*path, "thresholds")
        if self._document.has((*path, "threshold")):
            self._report.add(at, "threshold is set too", "one of the two")
        elif len(ladder.thresholds) != len(ladder.rungs):
            self._report.add(
                at,
                f"{len(ladder.thresholds)} thresholds for {len(ladder.rungs)} rungs",
                "one for each rung",
            )

    # [domains]

    def _check_domains(self) -> None:
        domains = self._config.domains
        if domains.zero_shot is not None:
            self._check_zero_shot(domains.zero_shot)
        for name, domain in domains.routes.items():
            path: KeyPath = ("domains", "routes", name)
            for key in ("cost_model", "quality_model", "fallback"):
                model = getattr(domain, key)
                if model is not None and model not in self._models:
                    self._unknown((*path, key), model, self._models, "models")
            if domain.semantic_examples and domains.detect != "embeddings":
                self._report.add(
                    (*path, "semantic_examples"),
                    "nothing compares queries with them",
                    '[domains] detect = "embeddings"',
                )
            try:
                _core.DomainRoutes([(domain.keywords, domain.patterns)])
            except ValueError as error:
                words = "keywords of letters or digits, and regular expressions without look-around"
                self._report.add(path, error.args[0], words)
        if domains.routes and domains.detect == "off":
            self._report.add(
                ("domains", "routes"),
                "nobody looks what queries are about",
                '[domains] detect = "rules" or "embeddings"',
            )

    def _check_zero_shot(self, name: str) -> None:
        classifier = self._config.classifiers.get(name)
        if classifier is None:
            known = set(self._config.classifiers)
            self._unknown(("domains", "zero_shot"), name, known, "classifiers")

    # Aliases, here and in ladders

    def _check_aliases(self) -> None:
        owners: dict[str, KeyPath] = {alias: ("aliases", alias) for alias in self._config.aliases}
        for alias, path in self._ladder_aliases():
            first = owners.setdefault(alias, path)
            if first != path:
                where = " at line " + str(self._document.line_of(first))
                self._report.add(path, f"{shown(alias)} is an alias already{where}", "it once")
        for alias, target in self._config.aliases.items():
            self._check_target(("aliases", alias), target, set(owners))
        self._check_cycles()

    def _ladder_aliases(self) -> Iterator[tuple[str, KeyPath]]:
        for name, ladder in self._config.ladders.items():
            for index, alias in enumerate(ladder.aliases):
                yield alias, ("ladders", name, "aliases", index)

    def _check_target(self, path: KeyPath, target: str, aliases: set[str]) -> None:
        ladders = {LADDER_PREFIX + name for name in self._ladders}
        if target in ladders | self._models | aliases:
            return
        if target in self._ladders:
            self._report.add(
                path, "a ladder goes by its full name", "cascade/NAME", LADDER_PREFIX + target
            )
        else:
            message = f"there is no {shown(target)}"
            near = self._report.nearest(target, ladders | self._models | aliases)
            self._report.add(path, message, "cascade/NAME, a model or another alias", near)

    def _check_cycles(self) -> None:
        aliases = self._config.aliases
        done: set[str] = set()
        for alias in aliases:
            trail: dict[str, None] = {}
            name = alias
            while name in aliases and name not in done and name not in trail:
                trail[name] = None
                name = aliases[name]
            if name in trail:
                around = [*trail][[*trail].index(name) :]
                more = ["…"] if len(around) > MAX_SHOWN_CHAIN else []
                links = [*map(shown, around[:MAX_SHOWN_CHAIN]), *more, shown(name)]
                chain = " → ".join(links)
                self._report.add(("aliases", name), f"it leads back to itself: {chain}", "an end")
            done |= trail.keys()

    # [cascade], [quality]

    def _check_bounds(self) -> None:
        prompt, body = self._config.cascade.max_prompt_bytes, self._config.server.max_body_bytes
        if prompt > body:
            self._report.add(
                ("cascade", "max_prompt_bytes"),
                f"{prompt} is more than server.max_body_bytes",
                f"at most {body}",
            )

    def _check_quality(self) -> None:
        quality, models = self._config.quality, self._config.models
        judge = quality.judge
        if judge is not None and judge not in models:
            self._unknown(("quality", "judge"), judge, set(models), "models")
        elif judge is not None and "reasoning" in (models[judge].capabilities or ()):
            self._report.add(
                ("quality", "judge"),
                f"{shown(judge)} thinks before it speaks, and a judge says one word",
                'a model without the capability "reasoning"',
            )
        classifier = quality.toxicity_classifier
        if classifier is not None and classifier not in self._config.classifiers:
            known = set(self._config.classifiers)
            self._unknown(("quality", "toxicity_classifier"), classifier, known, "classifiers")

    # [tiers_from_database]

    def _check_database(self) -> None:
        table = self._config.tiers_from_database
        if table is None:
            return
        path: KeyPath = ("tiers_from_database",)
        if not _CONNECTION.match(table.connection.reveal()):
            self._report.add(
                (*path, "connection"),
                "what it refers to is not a connection string of PostgreSQL",
                "postgresql://USER@HOST/DATABASE",
            )
        if table.stale_after_s < table.refresh_s:
            at = (*path, "stale_after_s")
            message = f"{table.stale_after_s:g} is shorter than refresh_s"
            self._report.add(at, message, f"at least {table.refresh_s:g}")
        columns: dict[str, str] = {}
        for key, column in table.mapping.items():
            other = columns.setdefault(column, key)
            if other != key:
                self._report.add((*path, key), f"{other} is {shown(column)} too", "another column")

    def _unknown(self, path: KeyPath, name: str, known: set[str], table: str) -> None:
        near = self._report.nearest(name, sorted(known))
        expected = f"a name that has a table [{table}.{quoted_key(name)}]"
        self._report.add(path, f"there is no {shown(name)}", expected, near)


def _is_sensitive(header: str, value: str) -> bool:
    return header.lower() in _SENSITIVE_HEADERS or looks_secret(value)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or address alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _url(text: str, schemes: tuple[str, ...]) -> SplitResult | None:
    """The parts of a URL with a host, or `None`."""
    if not text.isascii() or not text.isprintable() or " " in text:
        return None
    try:
        url = urlsplit(text)
        sound = url.scheme in schemes and bool(url.hostname) and url.port != 0
    except ValueError:
        return None
    return url if sound else None

"""OpenTelemetry, over OTLP/HTTP. It is imported by daemons that are configured to use it."""

from cascaded.adapters.otel.exporter import Content, Exporter, Terms

__all__ = ["Content", "Exporter", "Terms"]

"""A plug-in for proxy.py: every name is this machine, so that no question leaves it."""

from proxy.http.proxy import HttpProxyBasePlugin


class ToLoopback(HttpProxyBasePlugin):
    def resolve_dns(self, host: str, port: int) -> tuple[str, None]:
        return "127.0.0.1", None

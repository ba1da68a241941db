"""nginx, the yardstick of plain relaying: the system's own, since it is a package of every distribution."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from fastroute.bench.peers.peer import Peer, Say, run

# A client body that fits its buffer touches no disk; a stream is passed on as it comes.
CONFIG = """\
worker_processes 1;
daemon off;
{user}pid nginx.pid;
error_log stderr error;
events {{ worker_connections 16384; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    client_max_body_size 8m;
    client_body_buffer_size 128k;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    upstream provider {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://provider;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""


class Nginx(Peer):
    name = "nginx"
    settings = "one worker, kept connections to the provider, proxy_buffering off, no access log"

    @property
    def version(self) -> str:
        found = shutil.which("nginx", path=_path())
        if found is None:
            return "not installed"
        told = subprocess.run([found, "-v"], capture_output=True, text=True, timeout=10, check=False).stderr  # noqa: S603  nginx's own
        version = re.search(r"nginx/(\S+)", told)
        return version[1] if version else told.strip()

    def program(self, home: Path) -> Path:
        return Path(shutil.which("nginx", path=_path()) or "nginx-is-not-installed")

    def lacks(self, home: Path) -> str | None:
        return None if self.program(home).exists() else "nginx is not installed; `apt-get install nginx-light` has it"

    def install(self, home: Path, say: Say) -> None:
        say("nginx: apt-get install nginx-light")
        run(["apt-get", "update", "-qq"])
        run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "nginx-light"])

    def files(self, port: int, upstream: int) -> dict[str, str]:
        user = "user root;\n" if os.geteuid() == 0 else ""
        return {"nginx.conf": CONFIG.format(port=port, upstream=upstream, user=user)}

    def command(self, home: Path, place: Path, port: int, upstream: int) -> Sequence[str]:
        return [str(self.program(home)), "-p", str(place), "-e", "stderr", "-c", "nginx.conf"]


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"

# fastroute in a container: built in one stage, run in another as a user who owns nothing but the state volume.
#   docker build -t fastroute .
#   docker run --read-only -v fastroute:/state -e ROUTER_API_KEY=... -p 8000:8000 fastroute
FROM python:3.13-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in LICENSE README.md ./
COPY fastroute ./fastroute
RUN python -m venv /opt/fastroute && /opt/fastroute/bin/pip install --no-cache-dir '.[capture,redis]'

FROM python:3.13-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates tini && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /state fastroute \
 && install -d -o fastroute -m 0700 /state
COPY --from=build /opt/fastroute /opt/fastroute
USER 10001
WORKDIR /state
VOLUME /state
# Nothing is written outside the volume, so the root file system may be read-only.
ENV PATH=/opt/fastroute/bin:$PATH PYTHONDONTWRITEBYTECODE=1 FASTROUTE_STATE_DIR=/state FASTROUTE_HOST=0.0.0.0 LOG_PATH=/state/logs/router.log
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ.get(\"FASTROUTE_PORT\", 8000)}/healthz', timeout=2)"]
ENTRYPOINT ["tini", "--", "fastroute"]
CMD ["serve"]

"""Every page of figures opens with the machine they were taken on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def pytest_report_header() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}, load {load}"
    )

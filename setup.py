"""Builds the compiled rooms; everything else about the package is in pyproject.toml."""

import os
import re
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

version = re.search(r'^version = "(.+)"', Path("pyproject.toml").read_text(), re.MULTILINE)
if version is None:
    raise SystemExit("pyproject.toml names no version")

# -g0: the default build carries a megabyte of debug data.
flags = ["-O3", "-g0", f'-DFASTROUTE_VERSION="{version[1]}"', *os.environ.get("FASTROUTE_CFLAGS", "").split()]

setup(
    ext_modules=cythonize(
        [
            Extension(
                str(path.with_suffix("")).replace("/", "."),
                [str(path)],
                extra_compile_args=flags,
            )
            for path in sorted(Path("fastroute").rglob("*.pyx"))
        ],
        build_dir="build/cython",
        language_level=3,
    )
)

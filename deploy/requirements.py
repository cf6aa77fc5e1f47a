"""The requirements of a project, one a line: `requirements.py EXTRA…` reads pyproject.toml of the current folder."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
for requirement in (*project["dependencies"], *(each for extra in sys.argv[1:] for each in extras[extra])):
    sys.stdout.write(f"{requirement}\n")

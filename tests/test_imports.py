"""The house's order: imports go one way, and each heavy dependency has one door."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ["storage", "auth", "runtime", "registry"]
MODULES = [path for package in ORDER for path in sorted((ROOT / package).rglob("*.py"))]
DOORS = {
    "flask": ("registry/", "runtime/api/", "auth/access.py"),
    "boto3": ("storage/drivers/s3.py",),
    "cryptography": ("auth/",),
    "jwt": ("auth/",),
    "llama_cpp": ("runtime/runner/",),
    "llguidance": ("runtime/runner/grammar.py",),
    "PIL": ("runtime/runner/pixels.py",),
    "jinja2": ("runtime/templates/jinja.py",),
    "urllib3": ("registry/remotes/",),
    "zstandard": ("runtime/api/v1_body.py",),
    "sqlalchemy": (
        "storage/",
        "auth/",
        "registry/mirror/",
        "registry/remotes/models.py",
        "registry/remotes/row_notes.py",
    ),
    "gunicorn": ("registry/workers.py", "registry/patience.py", "registry/wsgi_input.py"),
}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides where it goes"
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_its_left_and_through_the_doors(path):
    name = path.relative_to(ROOT).as_posix()
    right_of_it = ORDER[ORDER.index(name.split("/")[0]) + 1 :]
    for module in imported(path):
        top = module.split(".")[0]
        assert top not in right_of_it, f"{name} imports {module}"
        if top in DOORS:
            assert name.startswith(DOORS[top]), f"{name} imports {module} beside its door"


def test_only_the_settings_read_the_environment():
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in ("environ", "getenv")
        and getattr(node.value, "id", "") == "os"
    }
    assert readers == {"registry/config.py"}


def test_nothing_unpickles():
    assert not [path for path in MODULES if imported(path) & {"pickle", "marshal", "shelve", "dill"}]

"""The official Python client, ollama 0.6.3 of PyPI: no method of it goes untested."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import ollama
import pytest


@pytest.mark.parametrize("kind", [ollama.Client, ollama.AsyncClient])
def test_every_method_of_the_client_is_called_by_a_test(kind: type[object]) -> None:
    """By one that has both clients in turn, as all beside this file have."""
    methods = {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")}
    tests = [test for path in Path(__file__).parent.glob("test_python_*.py") for test in _named_tests(path)]

    assert methods - {name for test in tests for name in _called_on_a_client(test)} == set()


def _named_tests(path: Path) -> list[ast.FunctionDef]:
    found = ast.parse(path.read_bytes()).body
    return [each for each in found if isinstance(each, ast.FunctionDef) and each.name.startswith("test_")]


def _called_on_a_client(test: ast.FunctionDef) -> Iterator[str]:
    for node in ast.walk(test):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="client"), attr=method)):
                yield method

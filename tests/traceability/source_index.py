"""The tests of a checkout by name, read from their source: nothing is imported, so it takes a second."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_NOT_RUN = ("skip", "skipif", "xfail")


@dataclass(frozen=True, slots=True)
class Test:
    """A test function, or a test class that is made elsewhere; `marks` are those by which it may not run or not pass."""

    __test__ = False  # not a test class for pytest

    name: str
    marks: tuple[str, ...]


class SourceIndex:
    """The tests below `root / "tests"`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._modules: dict[str, tuple[Test, ...]] = {}

    def find(self, node_id: str) -> tuple[Test, ...]:
        """The tests of a node id: a test, or all of a class or module; none if it does not exist."""
        module, _, name = node_id.partition("::")
        tests = self._tests_of(module)
        return tuple(test for test in tests if not name or test.name == name or test.name.startswith(f"{name}::"))

    def node_ids(self, reference: str) -> tuple[str, ...]:
        """The node ids that a short reference of a page may mean: `test_y::test_a`, or `x/test_y::test_a` to be unique."""
        module, separator, name = reference.partition("::")
        paths = [path for path in self._paths if f"/{path}".endswith(f"/{module}.py")]
        return tuple(f"{path}{separator}{name}" for path in paths)

    def find_name(self, node_id: str) -> tuple[str, ...]:
        """The node ids of the same test in any module: a test that was moved."""
        name = node_id.partition("::")[2]
        return tuple(f"{path}::{name}" for path in self._paths if name and self.find(f"{path}::{name}"))

    @cached_property
    def _paths(self) -> tuple[str, ...]:
        return tuple(path.relative_to(self._root).as_posix() for path in sorted(self._root.glob("tests/**/test_*.py")))

    def _tests_of(self, module: str) -> tuple[Test, ...]:
        if module not in self._modules:
            path = self._root / module
            self._modules[module] = tuple(_tests_in(ast.parse(path.read_text()), "")) if path.is_file() else ()
        return self._modules[module]


def _tests_in(body: ast.Module | ast.ClassDef, prefix: str, inherited: tuple[str, ...] = ()) -> Iterator[Test]:
    inherited += tuple(mark for node in body.body if _assigns(node, "pytestmark") for mark in _marks(node))
    for node in body.body:
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            marks = tuple(mark for decorator in node.decorator_list for mark in _marks(decorator))
            yield from _tests_in(node, f"{prefix}{node.name}::", inherited + marks)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            marks = tuple(mark for decorator in node.decorator_list for mark in _marks(decorator))
            yield Test(prefix + node.name, inherited + marks)
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
            yield from (Test(prefix + name, inherited) for name in names if name.startswith("Test"))


def _assigns(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)


def _marks(node: ast.AST) -> list[str]:
    return [child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute) and child.attr in _NOT_RUN]

"""The second reader proves the documents only while it shares no code with the product."""

import ast
import sys
from pathlib import Path

SHARED = {"tests", "cryptography", "pytest", "hypothesis"}


def test_nothing_of_the_product_is_imported():
    imported = set()
    for path in Path(__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module or "")
    outside = {name for name in imported if name.partition(".")[0] not in sys.stdlib_module_names | SHARED}
    helpers = {name for name in imported if name.startswith("tests") and not name.startswith("tests.second_reader")}
    assert not outside | helpers
    assert "tests.second_reader" in imported

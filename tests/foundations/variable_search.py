"""Which environment variables a package reads: a search of the syntax trees of its Python sources."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

# Cheap look before a file is parsed.
HINT = re.compile(r"environ\b|getenv|from_env|env_name|env_var|get_\w*env\w*\(")
VARIABLE = re.compile(r"[A-Z_][A-Z0-9_*]+")
# Sources that no training runs.
TESTS = re.compile(r"/(testing|test_utils|benchmark)/|/testing_utils\.py$|/run_cpu\.py$|/collect_env\.py$")
# Most strings that one expression is followed to; beyond, its changing part is a star.
MOST = 40
READERS = ("environ.get", "environ.setdefault", "environ.pop", "getenv")


@dataclass(frozen=True)
class Read:
    """`name`: of the variable, `*` for a part that is made as the program runs; `at_import`: outside any function."""

    name: str
    file: str
    line: int
    at_import: bool


def sources_of(package: str) -> Iterator[tuple[Path, str]]:
    """The sources of a package, but those of its tests, that may read a variable."""
    for path in sorted(Path(find_spec(package).origin).parent.rglob("*.py")):
        source = path.read_text(encoding="utf-8", errors="replace")
        if HINT.search(source) and not TESTS.search(path.as_posix()):
            yield path, source


def variables_read(package: str) -> list[Read]:
    """Every reading of an environment variable in a package's sources but those of its tests."""
    reads = []
    for path, source in sources_of(package):
        reader = _Reader(path.as_posix().rpartition("site-packages/")[2])
        reader.visit(ast.parse(source))
        reads += reader.reads
    return reads


class _Reader(ast.NodeVisitor):
    def __init__(self, file: str):
        self.file = file
        self.reads: list[Read] = []
        # Strings that a name may be, of the module and of each function around the place.
        self.scopes: list[dict[str, set[str]]] = []

    def visit_Module(self, node: ast.Module) -> None:
        self._scope(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._scope(node)

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    def _scope(self, node: ast.AST) -> None:
        self.scopes.append(defaultdict(set))
        for name, value in _assigned(node):
            self.scopes[-1][name] |= self._strings(value)
        self.generic_visit(node)
        self.scopes.pop()

    def visit_Subscript(self, node: ast.Subscript) -> None:
        if _dotted(node.value).endswith("environ") and isinstance(node.ctx, ast.Load):
            self._read(node, node.slice)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        if isinstance(node.ops[0], (ast.In, ast.NotIn)) and _dotted(node.comparators[0]).endswith("environ"):
            self._read(node, node.left)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = _dotted(node.func)
        if function.endswith(READERS) and node.args:
            self._read(node, node.args[0])
        elif "env" in function.rpartition(".")[2].lower():
            # A helper that reads what it is given the name of, such as parse_flag_from_env.
            for argument in node.args[:1]:
                self._read(node, argument)
        for keyword in node.keywords:
            # torch's Config(env_name_force=...).
            if keyword.arg and keyword.arg.startswith("env_"):
                self._read(node, keyword.value)
        self.generic_visit(node)

    def _read(self, node: ast.expr, name: ast.expr) -> None:
        found = {text for text in self._strings(name) if VARIABLE.fullmatch(text)}
        self.reads += [Read(text, self.file, node.lineno, len(self.scopes) == 1) for text in sorted(found)]

    def _strings(self, node: ast.AST | None) -> set[str]:
        """The strings that an expression may be; a part that is not known is a star."""
        match node:
            case ast.Constant(value=str(text)):
                return {text}
            case ast.Name(id=name) | ast.Attribute(attr=name):
                return next((set(scope[name]) for scope in reversed(self.scopes) if scope.get(name)), set())
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                return set().union(*map(self._strings, items))
            case ast.Dict(keys=items):
                return set().union(*map(self._strings, items))
            case ast.FormattedValue(value=value):
                return self._strings(value)
            case ast.JoinedStr(values=parts):
                return self._joined(parts)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return self._joined([left, right])
            case ast.IfExp(body=body, orelse=other):
                return self._strings(body) | self._strings(other)
            case ast.Call(func=ast.Attribute(value=value, attr="upper")):
                return {text.upper() for text in self._strings(value)}
        return set()

    def _joined(self, parts: list[ast.expr]) -> set[str]:
        whole = {""}
        for part in parts:
            ends = self._strings(part) or {"*"}
            whole = {a + b for a in whole for b in (ends if len(ends) * len(whole) <= MOST else {"*"})}
        return whole


def _assigned(scope: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names and what they are set to within a module or a function, not in the functions inside it."""
    todo = list(ast.iter_child_nodes(scope))
    while todo:
        node = todo.pop()
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, (ast.Name, ast.Attribute)):
                        yield getattr(target, "id", None) or target.attr, value
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if value is not None:
                yield name, value
            case (
                ast.For(target=ast.Name(id=name), iter=value) | ast.comprehension(target=ast.Name(id=name), iter=value)
            ):
                yield name, value
            case ast.arguments(args=arguments, defaults=defaults):
                yield from ((a.arg, d) for a, d in zip(reversed(arguments), reversed(defaults), strict=False))
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            todo += ast.iter_child_nodes(node)


def _dotted(node: ast.expr) -> str:
    match node:
        case ast.Attribute(value=value, attr=name):
            return f"{_dotted(value)}.{name}"
        case ast.Name(id=name):
            return name
    return "?"

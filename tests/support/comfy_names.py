"""Finds every name of ComfyUI that the pack uses, and how, from the pack's source.

A use is a dotted name, with its arguments if it is called: ``_`` for each positional argument,
then the keywords, ``*`` and ``**`` for unpacked arguments; all calls of a name together. A ``?``
after it means a use by getattr or hasattr, as some versions lack the name.

Found are imported names; variables and attributes of ``self`` that hold such a name, or an
instance made by calling it; parameters annotated with one; and what a class inherits from
ComfyUI's class. Uses of objects without a known type are not found.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

MODULES = frozenset(
    (
        *("comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths"),
        *("latent_preview", "node_helpers", "nodes", "server", "utils"),
    )
)
"""ComfyUI's packages and modules whose names are found."""
Scope = dict[str, tuple[str, ...]]
"""Possible values of variables: dotted names of ComfyUI; those of instances end in ``()``."""


@dataclass
class Use:
    """All uses of one name."""

    places: int = 0
    keywords: set[str] = field(default_factory=set)
    called: bool = False
    optional: bool = True

    def text(self, name: str) -> str:
        """The line for this name."""
        passed = ", ".join(["_"] * self.places + sorted(self.keywords, key=_spread_last))
        return name + (f"({passed})" if self.called else "") + ("?" if self.optional else "")


def _spread_last(keyword: str) -> tuple[bool, str]:
    return keyword.startswith("*"), keyword


@dataclass(frozen=True)
class Override:
    """A method of the pack that overrides one of ComfyUI."""

    place: str
    """File and class."""
    base: str
    method: ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Found:
    """All uses in the sources."""

    uses: dict[str, Use] = field(default_factory=dict)
    methods: list[Override] = field(default_factory=list)
    """All methods of classes that extend ComfyUI's, whether they override one or not."""

    def lines(self) -> set[str]:
        """A line for every name."""
        return {use.text(name) for name, use in self.uses.items()}


def read_pack(root: Path) -> Found:
    """Find the uses in ``nodes/`` and ``__init__.py`` below ``root``."""
    found = Found()
    for path in (root / "__init__.py", *sorted((root / "nodes").rglob("*.py"))):
        _File(path.relative_to(root).as_posix(), found).read(ast.parse(path.read_text("utf-8")))
    return found


class _File:
    """Reads one file."""

    def __init__(self, name: str, found: Found) -> None:
        self.name, self.found = name, found

    def read(self, tree: ast.Module) -> None:
        scope: Scope = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for a in node.names:
                    if a.name.split(".")[0] in MODULES:
                        scope[a.asname or a.name.split(".")[0]] = (
                            a.name if a.asname else a.name.split(".")[0],
                        )
            elif isinstance(node, ast.ImportFrom) and not node.level:
                for a in node.names if (node.module or "").split(".")[0] in MODULES else ():
                    scope[a.asname or a.name] = (f"{node.module}.{a.name}",)
        self.walk(tree.body, scope)

    def walk(self, body: Iterable[ast.AST], scope: Scope) -> None:
        for node in body:
            self.visit(node, scope)

    def visit(self, node: ast.AST, scope: Scope) -> None:
        if isinstance(node, ast.ClassDef):
            self.visit_class(node, scope)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.visit_function(node, dict(scope))
        elif isinstance(node, ast.Lambda):
            inner = {k: v for k, v in scope.items() if k not in _arguments(node.args)}
            self.visit(node.body, inner)
        elif isinstance(node, ast.Call):
            self.visit_call(node, scope)
        elif isinstance(node, ast.Attribute | ast.Name):
            paths = self.paths(node, scope)
            for path in paths:
                self.use(path)
            if not paths:
                self.walk(ast.iter_child_nodes(node), scope)
        else:
            self.walk(ast.iter_child_nodes(node), scope)
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                self.assign(node, scope)

    def assign(self, node: ast.Assign | ast.AnnAssign, scope: Scope) -> None:
        assert node.value is not None
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        held = self.held(node.value, scope)
        for target in targets:
            name = ast.unparse(target)
            if held:
                scope[name] = held
            elif isinstance(target, ast.Name) and not self.derived(node.value, name):
                scope.pop(name, None)

    def derived(self, value: ast.AST, name: str) -> bool:
        """Whether ``value`` is a method's result on the variable itself, such as a clone."""
        return isinstance(value, ast.Call) and ast.unparse(value.func).startswith(f"{name}.")

    def held(self, value: ast.AST, scope: Scope) -> tuple[str, ...]:
        """Names of ComfyUI that a variable holds after the assignment of ``value``."""
        if isinstance(value, ast.IfExp):
            return self.held(value.body, scope) + self.held(value.orelse, scope)
        if isinstance(value, ast.Call):
            if asked := self.asked(value, scope):
                return asked
            made = self.paths(value.func, scope)
            return tuple(f"{p}()" for p in made if p.split(".")[-1][:1].isupper())
        return tuple(p for p in self.paths(value, scope) if not p.endswith("()"))

    def asked(self, call: ast.Call, scope: Scope) -> tuple[str, ...]:
        """The names in a call of getattr or hasattr."""
        name, args = ast.unparse(call.func), call.args
        if name not in ("getattr", "hasattr") or len(args) < 2:
            return ()
        if not (isinstance(args[1], ast.Constant) and isinstance(args[1].value, str)):
            return ()
        owners = self.paths(args[0], scope)
        if ast.unparse(args[0]).startswith("sys.modules.get("):
            owners = (ast.literal_eval(args[0].args[0]),)  # type: ignore[attr-defined]
        return tuple(f"{owner.removesuffix('()')}.{args[1].value}" for owner in owners)

    def visit_call(self, node: ast.Call, scope: Scope) -> None:
        asked = self.asked(node, scope)
        for path in asked:
            self.found.uses.setdefault(path, Use())
        paths = self.paths(node.func, scope)
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "super()":
            paths = tuple(f"{base}.{node.func.attr}" for base in scope.get("super()", ()))
        for path in paths:
            self.use(path, node)
        if not paths and not asked:
            self.visit(node.func, scope)
        if not asked:
            self.walk(node.args, scope)
        self.walk([k.value for k in node.keywords], scope)

    def use(self, path: str, call: ast.Call | None = None) -> None:
        path = path.removesuffix("()")
        if path in MODULES:
            return
        # A variable from getattr stays optional in all its uses.
        known = self.found.uses.get(path)
        use = self.found.uses.setdefault(path, Use(optional=False))
        if known is None:
            use.optional = False
        if call is None:
            return
        use.called = True
        by_place = [a for a in call.args if not isinstance(a, ast.Starred)]
        if path.endswith(".__init__") and by_place and ast.unparse(by_place[0]) == "self":
            del by_place[0]  # a call of the class's method without super
        use.places = max(use.places, len(by_place))
        use.keywords |= {k.arg or "**" for k in call.keywords}
        if any(isinstance(a, ast.Starred) for a in call.args):
            use.keywords.add("*")

    def paths(self, node: ast.AST, scope: Scope) -> tuple[str, ...]:
        """The dotted names of ComfyUI that an expression may mean; empty if there are none."""
        if isinstance(node, ast.Name | ast.Attribute) and (known := scope.get(ast.unparse(node))):
            return known
        if isinstance(node, ast.Attribute):
            owners = self.paths(node.value, scope)
            return tuple(f"{owner.removesuffix('()')}.{node.attr}" for owner in owners)
        return ()

    def visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, scope: Scope) -> None:
        self.walk(node.decorator_list, scope)
        args = node.args
        for argument in (*args.posonlyargs, *args.args, *args.kwonlyargs):
            scope.pop(argument.arg, None)
            if argument.annotation is None:
                continue
            self.visit(argument.annotation, scope)
            if paths := self.paths(argument.annotation, scope):
                scope[argument.arg] = tuple(f"{path}()" for path in paths)
        for given in (*args.defaults, *args.kw_defaults, node.returns):
            if given is not None:
                self.visit(given, scope)
        self.walk(node.body, scope)

    def visit_class(self, node: ast.ClassDef, scope: Scope) -> None:
        self.walk([*node.bases, *(k.value for k in node.keywords)], scope)
        bases = tuple(path for base in node.bases for path in self.paths(base, scope))
        inner = dict(scope)
        functions = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        if bases:
            inner["super()"] = bases
            own = set(_own_names(node))
            for n in ast.walk(node):
                if not isinstance(n, ast.Attribute) or n.attr in own:
                    continue
                if ast.unparse(n.value) in ("self", "cls"):
                    inner[ast.unparse(n)] = tuple(f"{base}.{n.attr}" for base in bases)
            for function in functions:
                for base in bases:
                    place = f"{self.name}: {node.name}"
                    self.found.methods.append(Override(place, base, function))
        for child in node.body:
            self.visit(child, inner)
        # Attributes of self that one method sets may be used in others.
        shared: Scope = {}
        for function in functions:
            for n in ast.walk(function):
                if isinstance(n, ast.Assign) and (held := self.held(n.value, inner)):
                    shared[ast.unparse(n.targets[0])] = held
        shared = {name: held for name, held in shared.items() if name.startswith("self.")}
        if shared:
            for function in functions:
                self.visit_function(function, {**inner, **shared})


def _arguments(args: ast.arguments) -> set[str]:
    return {a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs)}


def _own_names(node: ast.ClassDef) -> Iterator[str]:
    """Names that a class defines: methods, class variables, attributes of self."""
    for n in ast.walk(node):
        if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef):
            yield n.name
        elif isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store):
            yield n.attr
        elif isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store):
            yield n.id

"""Names that a config may use: classes in mmengine's registries and their options."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..usage_error import did_you_mean

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Options(NamedTuple):
    """Options of a class.

    Attributes:
        names: the known ones.
        complete: whether there are no others; there may be if a constructor uses its ``**kwargs``
            for something else than the constructor of its base class.
    """

    names: frozenset[str]
    complete: bool


def options_of(function: Callable) -> Options:
    """Options of a function, or of a class and of base classes that may get its ``**kwargs``."""
    names: set[str] = set()
    complete = True
    for one in _constructors(function) if inspect.isclass(function) else [function]:
        try:
            parameters = inspect.signature(one).parameters.values()
        except ValueError:  # a constructor in C
            return Options(frozenset(names), complete=False)
        names |= {parameter.name for parameter in parameters if parameter.kind in _NAMED}
        rest = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
        if not rest:
            break
        taken, goes_to_base = _uses_of(one, rest[0])
        names |= taken
        complete = complete and goes_to_base
    return Options(frozenset(names) - {'self'}, complete)


def _constructors(cls: type) -> Iterator[Callable]:
    """Constructors of a class and its bases, in the order in which they are called."""
    for base in cls.__mro__[:-1]:
        if '__init__' in vars(base):
            yield vars(base)['__init__']


def _uses_of(constructor: Callable, rest: str) -> tuple[set[str], bool]:
    """Options that a constructor takes out of its ``**kwargs``, and whether all others go on.

    They do if it uses them in ``super().__init__(**kwargs)``, ``kwargs.get()`` and ``kwargs.pop()``
    alone.
    """
    try:
        nodes = [*ast.walk(ast.parse(textwrap.dedent(inspect.getsource(constructor))))]
    except (OSError, SyntaxError, TypeError):  # no source
        return set(), False
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    read = [call for call in calls if ast.unparse(call.func) in (f'{rest}.get', f'{rest}.pop')]
    passed = [
        ast.unparse(call.func)
        for call in calls
        if any(key.arg is None and ast.unparse(key.value) == rest for key in call.keywords)
    ]
    taken = {call.args[0].value for call in read if isinstance(call.args[0], ast.Constant)}
    uses = sum(isinstance(node, ast.Name) and node.id == rest for node in nodes)
    to_base = all(re.fullmatch(r'super\(.*\)\.__init__', function) for function in passed)
    return taken, len(passed) + len(read) == uses and len(passed) == 1 and to_base


def unknown_option(name: str, option: str, options: Options) -> str:
    """Message on an option that a class does not have."""
    hint = did_you_mean(option, options.names)
    known = '' if hint else f'; its options are {", ".join(sorted(options.names)) or "none"}'
    return f'{name} has no option {option}{hint}{known}'


def unknown_class(name: str, registry) -> str:
    """Message on a class that is in neither a registry nor its parents and children."""
    names = registered(registry)
    hint = did_you_mean(name.rpartition('.')[2], names, written=names)
    return (
        f'{name} is not a registered {registry.name}{hint}'
        f'{"" if hint else "; the module of a class of your own must be in custom_imports"}'
    )


def registered(registry) -> dict[str, str]:
    """Names in an :class:`mmengine.registry.Registry`, its parents and its children.

    Returns:
        each name as a config writes it, with its scope (``mmdet.ResNet``), by the bare name.
    """
    while registry.parent is not None:
        registry = registry.parent
    names = {name: name for name in registry.module_dict}
    for scope, child in registry.children.items():
        prefix = '' if scope == 'mmdet3d' else f'{scope}.'
        names = {name: f'{prefix}{name}' for name in child.module_dict} | names
    return names

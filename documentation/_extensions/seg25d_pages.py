"""What the pages get from the code when they are built: navigation, tables of the registries, commands, the API.

An index page is a list of links for readers on GitHub; the same links become the navigation of the site. A comment
`<!-- generated: NAME -->` in a page is replaced by what `GENERATED` makes.
"""

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.autodoc.mock import mock
from sphinx.ext.napoleon import Config, GoogleDocstring

import seg25d
from seg25d import api
from seg25d.cli.main import HOMES
from seg25d.networks import paper_unets
from seg25d.networks.base import NETWORKS
from seg25d.networks.specs.mixing import KINDS
from seg25d.planning.network_rules import NETWORK_RULES
from seg25d.planning.recipe_rules import PLANNING_RULES
from seg25d.representations.base import CONFIGURATIONS, Representation

EXTRAS = ["ray", "submitit"]
"""Packages that modules import and that may be missing here; `autodoc_mock_imports` has the same."""
LINK = re.compile(r"^- \[[^\]]*\]\(([\w/]+)\.md\)", flags=re.MULTILINE)
MARK = re.compile(r"^<!-- generated: (\w+) -->$", flags=re.MULTILINE)
COMMAND = """## {name}

```{{sphinx_argparse_cli}}
:module: seg25d.cli.{name}
:func: main
:hook:
:prog: seg25d {name}
:title:
:usage_width: 80
:no_default_values:
:group_title_prefix:
:group_sub_title_prefix:
```"""
PAGE = re.compile(r"\bdocumentation/(\w+/\w+)\.md")
NOT_SHOWN = ("__main__", "pipeline")
"""Modules that are programs, or go with the next version."""


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring, on one line."""
    paragraph = " ".join((text or "").split("\n\n", maxsplit=1)[0].split())
    return re.split(r"(?<=[^.][.])\s+(?=[A-Z`])", paragraph, maxsplit=1)[0]


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    lines = [list(headings)]
    lines.append(["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(row) + " |" for row in [*lines, *map(list, rows)])


def configurations() -> str:
    """All methods: the configurations with what they see and the network that they get."""
    names: dict[type[Representation], list[str]] = {}
    for name, kind in CONFIGURATIONS.items():
        names.setdefault(kind, []).append(name)
    rows = []
    for kind, same in names.items():
        recipes = [rules.name for rules in PLANNING_RULES.values() if rules.configurations and rules.allows(same[0])]
        network = f"`{kind.default_network}` in {kind.network_dims}D"
        rows.append([code(same), first_sentence(kind.__doc__), network, abilities(kind), code(recipes)])
    return table(["configuration", "what the network sees", "planned network", "can also", "recipes of papers"], rows)


def abilities(kind: type[Representation]) -> str:
    """What not every method can do."""
    examples = kind.examples()
    can = {
        "pretrain": any(each.piece_axes is not None for each in examples),
        "pretrain by whole slices": any(each.stacking_axis is not None for each in examples),
        "be trained coarse-to-fine": kind.can_be_fine,
        "fuse other configurations": kind.fuses_views,
    }
    return ", ".join(ability for ability, able in can.items() if able)


def code(names: Iterable[str]) -> str:
    """Names in a list, as code."""
    return ", ".join(f"`{name}`" for name in names)


def networks() -> str:
    """All networks that can be asked for, in what dimensions."""
    rows = []
    for name, rule in NETWORK_RULES.items():
        source = importlib.import_module(NETWORKS[name].__module__) if name in NETWORKS else getattr(paper_unets, name)
        text = inspect.getdoc(source)
        rows.append([f"`{name}`", ", ".join(f"{dims}D" for dims in sorted(rule.dims)), first_sentence(text)])
    return table(["network", "dimensions", "what it is"], rows)


def mixings() -> str:
    """All ways of mixing slices, with their default settings."""
    rows = []
    for name, kind in KINDS.items():
        settings = kind().model_dump(exclude={"name"})
        told = ", ".join(f"`{key}` {value}" for key, value in settings.items())
        rows.append([f"`{name}`", first_sentence(kind.__doc__), told])
    return table(["mixing", "what it is", "settings in `plans.json`"], rows)


def commands() -> str:
    """Every command with its arguments, from its parser."""
    return "\n\n".join(COMMAND.format(name=name) for name in HOMES)


def functions() -> str:
    """The functions of the API, in the order of its file."""
    return "\n\n".join(
        f"```{{eval-rst}}\n.. autofunction:: seg25d.api.{name}\n```" for name in public_names(inspect.isfunction)
    )


def options() -> str:
    """The records that the functions of the API take."""
    return "\n\n".join(
        f"```{{eval-rst}}\n.. autoclass:: seg25d.api.{name}\n```" for name in public_names(inspect.isclass)
    )


def public_names(wanted: Callable[[Any], bool]) -> list[str]:
    """Those names of the API that stand for what is wanted; what is defined there first, in its order."""
    text = inspect.getsource(api)
    names = [name for name in api.__all__ if wanted(getattr(api, name))]
    return sorted(names, key=lambda name: text.find(f"def {name}(") % (len(text) + 1))  # -1, not found, comes last


def packages() -> str:
    """The way to the pages of all packages, which `write_api_pages` writes."""
    return "All [packages](api/packages.rst).\n\n```{toctree}\n:hidden:\n\napi/packages\n```"


GENERATED = {
    "configurations": configurations,
    "networks": networks,
    "mixings": mixings,
    "commands": commands,
    "functions": functions,
    "options": options,
    "packages": packages,
}


def fill_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put in what is generated; on index pages also the navigation."""
    del app
    source[0] = MARK.sub(lambda mark: GENERATED[mark.group(1)](), source[0])
    if docname.rsplit("/", maxsplit=1)[-1] == "index" and (pages := LINK.findall(source[0])):
        source[0] += "\n\n```{toctree}\n:hidden:\n\n" + "\n".join(pages) + "\n```\n"


def write_api_pages(app: Sphinx) -> None:
    """A page per package and per module below `reference/api`; pages of modules that are gone go too."""
    folder = Path(app.srcdir, "reference", "api")
    folder.mkdir(exist_ok=True)
    pages = dict(api_pages())
    for path in folder.glob("*.rst"):
        if path.stem not in pages:
            path.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.rst"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def api_pages() -> Iterable[tuple[str, str]]:
    """Names and texts of the pages: all packages, each package, each module."""
    packages = [module.name for module in pkgutil.iter_modules(seg25d.__path__) if module.ispkg]
    packages = [f"seg25d.{name}" for name in packages if name not in NOT_SHOWN]
    yield "packages", heading("Packages", "=") + listing(packages)
    for package in packages:
        yield from package_pages(package)


def package_pages(name: str) -> Iterable[tuple[str, str]]:
    """The page of a package and those of all that is in it."""
    package = importlib.import_module(name)
    yield_below = [
        (f"{name}.{module.name}", module.ispkg)
        for module in pkgutil.iter_modules(package.__path__)
        if module.name not in NOT_SHOWN
    ]
    yield name, heading(name, "=") + f".. automodule:: {name}\n\n" + listing([below for below, _ in yield_below])
    for below, is_package in yield_below:
        if is_package:
            yield from package_pages(below)
        else:
            yield below, heading(below, "=") + f".. automodule:: {below}\n"


def heading(text: str, line: str) -> str:
    """A heading in reStructuredText, with its own short name for the navigation."""
    return f"{text}\n{line * len(text)}\n\n"


def listing(modules: Iterable[str]) -> str:
    """Modules with their first sentences, and the navigation to them."""
    with mock(EXTRAS):
        texts = {name: inspect.getdoc(importlib.import_module(name)) for name in modules}
    lines = [f"- :doc:`{name}`: {first_sentence(text)}" for name, text in texts.items()]
    entries = [f"   {name.split('.')[-1]} <{name}>" for name in modules]
    return "\n".join([*lines, "", ".. toctree::", "   :hidden:", "", *entries, ""])


def without_record_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Records are described by their fields: their signature would say all of it twice."""
    del app, name, options
    is_record = what == "class" and hasattr(obj, "model_fields")
    return ("", None) if is_record else (signature, returns)


class Docstring(GoogleDocstring):
    """Sections as Google has them; what is returned is said in words, even where there is a colon in them."""

    def _consume_returns_section(self, preprocess_types: bool = False) -> list[tuple[str, str, list[str]]]:
        del preprocess_types
        return [("", "", self._dedent(self._consume_to_next_section()))]


SPECIAL = re.compile(r"(`[^`]+`)|([*|\\])|(?<=\w)_(?!\w)")


def as_restructured_text(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings have no markup but Google's sections, `code` and drawings set off by four spaces."""
    result: list[str] = []
    drawing = False
    for line in lines:
        indented, after_blank = line.startswith("    "), bool(result) and not result[-1]
        if indented and after_blank and not drawing and not last_text(result).startswith("    "):
            drawing = True
            result += ["::", ""]
        elif line and not indented:
            drawing = False
        result.append(line if drawing else escaped(PAGE.sub(r":doc:`/\1`", line)))
    # Of an attribute, Napoleon would take what stands before a colon in the first line for its type.
    kind = "object" if what in {"attribute", "data", "property"} else what
    lines[:] = Docstring(result, Config(), app, kind, name, obj, options).lines()


def escaped(line: str) -> str:
    """A line in which only code has markup."""
    return SPECIAL.sub(lambda found: found.group(1) or "\\" + found.group(0), line)


def last_text(lines: list[str]) -> str:
    """The last line that is not empty."""
    return next((line for line in reversed(lines) if line), "")


def setup(app: Sphinx) -> dict[str, Any]:
    """What Sphinx calls."""
    # The commands are called for their parsers, and look at the words of the command line before they parse them.
    del sys.argv[1:]
    app.connect("builder-inited", write_api_pages)
    app.connect("source-read", fill_page)
    app.connect("autodoc-process-docstring", as_restructured_text)
    app.connect("autodoc-process-signature", without_record_signature)
    return {"parallel_read_safe": True}

"""Loads the definitions of a repository by importing its Python files, as Feast does.

Which files, under which module names, is Feast's rule (`.feastignore` included). Unlike Feast's
own loader it works from any current directory, more than once in a process, and turns what
goes wrong in a file into a DefinitionError with the file's name and line.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from headwater.definitions.views import BatchView
from headwater.errors import DefinitionError, DefinitionErrors
from headwater.plans.compile import compile_plan
from headwater.plans.plan import BatchView as PlanBatchView
from headwater.plans.plan import Plan
from headwater.repository import Repository


def repository_plan(repository: Repository) -> Plan:
    """The plan of a repository's Python files.

    Raises:
        DefinitionErrors: a file cannot be imported, or all that is wrong in the definitions.
    """
    return compile_plan(repository.project, load_definitions(repository))


def load_settled(repository: Repository) -> tuple[Any, Plan]:
    """The definitions, with all schemas worked out, ready for Feast's registry; and their plan.

    Raises:
        DefinitionErrors: as `repository_plan`.
    """
    contents = load_definitions(repository)
    plan = compile_plan(repository.project, contents)
    for view in contents.feature_views:
        if isinstance(view, BatchView):
            compiled = plan.view(view.name)
            assert isinstance(compiled, PlanBatchView)
            view.settle(compiled)
    return contents, plan


def load_definitions(repository: Repository) -> Any:
    """Feast's RepoContents of the repository's Python files, freshly imported.

    Raises:
        DefinitionErrors: files that cannot be imported, each with its line.
    """
    modules, errors = [], []
    for file, imported in _import_all(repository.root):
        if isinstance(imported, ModuleType):
            modules.append(imported)
        else:
            errors.append(_explained(repository.root, file, imported))
    if errors:
        raise DefinitionErrors(errors)
    return _contents(repository.project, modules)


def _import_all(root: Path) -> list[tuple[Path, ModuleType | Exception]]:
    from feast.repo_operations import get_repo_files

    files = [Path(f) for f in get_repo_files(root)]
    names = {file: ".".join(file.relative_to(root).with_suffix("").parts) for file in files}
    with _import_path(root):
        _forget(files, set(names.values()))
        return [(file, _import(file, name)) for file, name in names.items()]


def _import(file: Path, name: str) -> ModuleType | Exception:
    try:
        module = importlib.import_module(name)
    except Exception as error:
        # The file is the user's, and may fail in any way; each way is an error of the definitions.
        return error
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != file:
        return ImportError(f"the name '{name}' is taken by the module {found or 'builtins'}; rename the file")
    return module


@contextmanager
def _import_path(root: Path) -> Iterator[None]:
    """Files of the repository import each other by bare name. No byte code: it could be older than an edit."""
    kept, written = list(sys.path), sys.dont_write_bytecode
    sys.path.insert(0, str(root))
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = kept
        sys.dont_write_bytecode = written


_loaded: set[str] = set()
"""Names of modules that an earlier load brought: another repository's `definitions` must make way."""


def _forget(files: list[Path], names: set[str]) -> None:
    ours = {str(file) for file in files}
    packages = {".".join(name.split(".")[:i]) for name in names for i in range(1, name.count(".") + 1)}
    for name in names | packages | _loaded:
        module = sys.modules.get(name)
        if module is not None and (name in _loaded or str(getattr(module, "__file__", "")) in ours):
            del sys.modules[name]
    _loaded.update(n for n in names | packages if n not in sys.modules)


def _explained(root: Path, file: Path, error: Exception) -> DefinitionError:
    if isinstance(error, SyntaxError) and error.filename:
        place, what = f"{_short(root, error.filename)}:{error.lineno}", f"syntax error: {error.msg}"
    else:
        place = f"{_short(root, str(file))}:{_line(root, file, error)}"
        what = str(error) if isinstance(error, DefinitionError) else f"{type(error).__name__}: {error}"
    return DefinitionError(f"{place}: {what}")


def _line(root: Path, file: Path, error: Exception) -> int:
    """The line of the file itself that the error came from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).resolve() == file]
    return frames[-1].lineno or 1 if frames else 1


def _short(root: Path, file: str) -> str:
    path = Path(file).resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _contents(project: str, modules: list[ModuleType]) -> Any:
    """The Feast objects at the modules' tops, each once, and the sources that views carry."""
    from feast import Entity, FeatureService, OnDemandFeatureView
    from feast.data_source import DataSource
    from feast.feature_view import DUMMY_ENTITY, FeatureView
    from feast.labeling.label_view import LabelView
    from feast.permissions.permission import Permission
    from feast.project import Project
    from feast.repo_contents import RepoContents
    from feast.stream_feature_view import StreamFeatureView

    found = list({id(o): o for module in modules for o in vars(module).values()}.values())

    def of(kind: type, *but: type) -> list[Any]:
        return [o for o in found if isinstance(o, kind) and not isinstance(o, but)]

    streams, views = of(StreamFeatureView), of(FeatureView, StreamFeatureView)
    sources = of(DataSource) + [s for v in (*streams, *views, *of(LabelView)) for s in _carried(v)]
    sources += [s.batch_source for s in sources if getattr(s, "batch_source", None) is not None]
    return RepoContents(
        projects=of(Project) or [Project(name=project)],
        data_sources=list({id(s): s for s in sources}.values()),
        feature_views=views,
        on_demand_feature_views=of(OnDemandFeatureView),
        stream_feature_views=streams,
        label_views=of(LabelView),
        entities=[*(e for e in of(Entity) if e is not DUMMY_ENTITY), DUMMY_ENTITY],
        feature_services=of(FeatureService),
        permissions=of(Permission),
    )


def _carried(view: Any) -> list[Any]:
    names = ("batch_source", "stream_source", "source")
    sources = [getattr(view, name, None) for name in names]
    from feast.data_source import DataSource

    return [s for s in sources if isinstance(s, DataSource)]

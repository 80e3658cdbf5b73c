"""A wheel, an sdist and an editable install each bring the package, `dimse` and the twistd plugin.

Long, and needs a package index and ``build``: chosen by ``python -m pytest -m packaging``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).resolve().parent.parent
NOT_SOURCE = shutil.ignore_patterns(
    ".git",
    ".*_cache",
    ".hypothesis",
    ".venv",
    "__pycache__",
    "*.egg-info",
    "build",
    "dist",
    "_build",
)


USE = """
from twisted.internet import reactor
from twisted.internet.endpoints import clientFromString
from twisted_dimse import Handler, connect, listen
clientFromString(reactor, "dicomtls:localhost:2762")
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, so that building leaves nothing behind in it."""
    return Path(
        shutil.copytree(ROOT, tmp_path_factory.mktemp("source") / "checkout", ignore=NOT_SOURCE)
    )


@pytest.fixture(scope="module")
def distributions(source: Path) -> dict[str, Path]:
    """The wheel, which is built from the sdist, and the sdist."""
    run(sys.executable, "-m", "build", ".", cwd=source)
    wheel, sdist = (next((source / "dist").glob(pattern)) for pattern in ("*.whl", "*.tar.gz"))
    return {"wheel": wheel, "sdist": sdist}


@pytest.mark.parametrize("kind", ["wheel", "sdist", "editable"])
def test_an_installation_shows_the_plugin_and_the_commands(
    kind: str, source: Path, distributions: dict[str, Path], tmp_path: Path
) -> None:
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=True, symlinks=True)
    programs = environment / "bin"
    what = ["-e", source] if kind == "editable" else [distributions[kind]]
    run(programs / "python", "-m", "pip", "install", "--quiet", *what, cwd=tmp_path)

    assert "dimse-scp" in run(programs / "twistd", "--help", cwd=tmp_path)
    assert "--directory" in run(programs / "twistd", "dimse-scp", "--help", cwd=tmp_path)
    assert "store" in run(programs / "dimse", "--help", cwd=tmp_path)
    run(programs / "python", "-c", USE, cwd=tmp_path)


def test_the_wheel_holds_every_module_and_leaves_twisted_alone(
    distributions: dict[str, Path],
) -> None:
    names = set(zipfile.ZipFile(distributions["wheel"]).namelist())
    modules = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "twisted_dimse").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert modules <= names
    plugins = {f"twisted/plugins/{path.name}" for path in (ROOT / "twisted/plugins").glob("*.py")}
    assert {name for name in names if name.startswith("twisted/")} == plugins
    assert not {name for name in names if name.startswith(("tests/", "docs/", "examples/"))}


def test_the_sdist_holds_what_its_tests_need(distributions: dict[str, Path]) -> None:
    with tarfile.open(distributions["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"README.md", "LICENSE", "pyproject.toml", ".ci/run", "tests/test_packaging.py"}
    assert wanted <= names
    assert not [name for name in names if name.endswith((".pyc", "dropin.cache"))]

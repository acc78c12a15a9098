"""Set-up of `.venv` with the real venv and pip, in a small project with one tiny package."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import psutil
import pytest

from launcher import environment
from launcher.instance_lock import InstanceLock
from shared.settings import PROJECT_DIR
from tests.stack import wait_until_gone


def make_wheel(folder: Path, name: str, version: str) -> None:
    """Write the smallest package that pip installs."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", f"VERSION = {version!r}\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


class Project:
    """A copy of our set-up code with its own requirements."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.venv = folder / ".venv"
        shutil.copytree(PROJECT_DIR / "launcher", folder / "launcher")
        (folder / "shared" / "process").mkdir(parents=True)
        shutil.copy(PROJECT_DIR / "shared" / "process" / "parent_watch.py", folder / "shared" / "process")
        self.require("1.0")

    def require(self, version: str) -> None:
        make_wheel(self.folder / "wheels", "tinything", version)
        (self.folder / "requirements.in").write_text("# why\ntinything  # a reason\n")
        (self.folder / "requirements.txt").write_text(f"tinything=={version}\n")

    def find(
        self, *, install: bool, requirements: str = "requirements", python: str = sys.executable, before: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        code = (
            f"{before}\n"
            "import sys\n"
            "from launcher.environment import find_environment, SetupIncompleteError\n"
            "try:\n"
            f"    python = find_environment([{requirements!r}], install={install})\n"
            "except SetupIncompleteError as problem:\n"
            "    sys.exit(f'{problem.message} -> {problem.hint}')\n"
            "sys.stdout.write(f'USE {python}')\n"
        )
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
        pip = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder / "wheels"), "PIP_CONFIG_FILE": os.devnull}
        return subprocess.run(
            [python, "-c", code], cwd=self.folder, env={**environ, **pip}, capture_output=True, text=True, timeout=120
        )

    def version(self) -> str:
        code = "import tinything; print(tinything.VERSION)"
        return subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()

    @property
    def log(self) -> str:
        return (self.folder / "data" / "logs" / "setup.log").read_text(encoding="utf-8")

    @property
    def python(self) -> str:
        return str(self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture(scope="module")
def empty_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment created by `python -m venv`, with only pip in it."""
    folder = tmp_path_factory.mktemp("empty") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def project_with_venv(project: Project, empty_venv: Path) -> Project:
    """A project whose `.venv` has pip but none of the packages."""
    shutil.copytree(empty_venv, project.venv, symlinks=True)
    return project


def test_the_first_run_creates_the_environment_and_the_second_changes_nothing(project: Project) -> None:
    first = project.find(install=True)
    assert first.stdout.endswith(f"USE {project.python}"), first.stderr
    assert "created .venv" in first.stdout
    # The output of pip is only in the log.
    assert "Successfully installed" not in first.stdout
    assert "Successfully installed tinything-1.0" in project.log
    assert project.version() == "1.0"
    stamp = project.venv / "dream-layer-complete"
    assert list(json.loads(stamp.read_text())) == ["requirements"]
    assert project.find(install=True).stdout == f"USE {project.python}"
    assert project.find(install=True, python=project.python).stdout == f"USE {project.python}"
    # A complete environment is used without permission to install, too.
    assert project.find(install=False).stdout == f"USE {project.python}"


def test_changed_requirements_are_installed(project_with_venv: Project) -> None:
    project = project_with_venv
    project.find(install=True)
    project.require("2.0")
    updated = project.find(install=True)
    assert "installing packages" in updated.stdout
    assert "created .venv" not in updated.stdout
    assert project.version() == "2.0"


def test_an_incomplete_environment_is_created_again(project_with_venv: Project) -> None:
    project = project_with_venv
    project.find(install=True)
    (project.venv / "dream-layer-installing").touch()
    (project.venv / "left-over").touch()
    assert project.find(install=False).returncode != 0
    assert "created .venv" in project.find(install=True).stdout
    assert not (project.venv / "left-over").exists()
    assert project.version() == "1.0"


def test_an_environment_created_by_the_user_is_completed(project_with_venv: Project) -> None:
    project = project_with_venv
    (project.venv / "theirs").touch()
    assert project.find(install=True).stdout.endswith(f"USE {project.python}")
    assert (project.venv / "theirs").exists()
    assert project.version() == "1.0"


def test_an_interpreter_with_all_packages_is_used_without_changes(project: Project) -> None:
    (project.folder / "requirements.in").write_text("pytest\n")
    assert project.find(install=True).stdout == f"USE {sys.executable}"
    assert not project.venv.exists()


def test_without_install_missing_packages_are_named(project: Project) -> None:
    refused = project.find(install=False)
    assert refused.returncode == 1
    assert "packages are missing: tinything -> `python dream_layer.py up` installs them" in refused.stderr
    assert "pip install -r requirements.txt" in refused.stderr
    assert not project.venv.exists()


def test_only_the_first_missing_packages_are_named(project: Project) -> None:
    (project.folder / "requirements.in").write_text("".join(f"tinything{number}\n" for number in range(6)))
    refused = project.find(install=False)
    missing = "missing: tinything0, tinything1, tinything2, tinything3 and 2 more -> `python dream_layer.py up`"
    assert missing in refused.stderr


def test_a_failed_install_is_reported_and_repeated(project_with_venv: Project) -> None:
    project = project_with_venv
    (project.folder / "requirements.txt").write_text("tinything==9.9\n")
    failed = project.find(install=True)
    assert failed.returncode == 1
    assert (
        f"pip could not install the packages. The end of {project.folder / 'data' / 'logs' / 'setup.log'}:"
        in failed.stderr
    )
    assert "ERROR: No matching distribution found for tinything==9.9" in failed.stderr
    (project.folder / "requirements.txt").write_text("tinything==1.0\n")
    assert project.find(install=True).stdout.endswith(f"USE {project.python}")


def hash_of(project: Project, version: str) -> str:
    wheel = project.folder / "wheels" / f"tinything-{version}-py3-none-any.whl"
    return hashlib.sha256(wheel.read_bytes()).hexdigest()


def test_a_package_with_the_wrong_hash_is_refused(project_with_venv: Project) -> None:
    project = project_with_venv
    lock = project.folder / "requirements.txt"
    lock.write_text(f"tinything==1.0 \\\n    --hash=sha256:{'0' * 64}\n")
    refused = project.find(install=True)
    assert refused.returncode == 1
    assert "DO NOT MATCH THE HASHES" in refused.stderr
    lock.write_text(f"tinything==1.0 \\\n    --hash=sha256:{hash_of(project, '1.0')}\n")
    assert project.find(install=True).stdout.endswith(f"USE {project.python}")
    assert project.version() == "1.0"


def test_torch_is_installed_after_the_lock_and_without_a_hash(project_with_venv: Project) -> None:
    project = project_with_venv
    make_wheel(project.folder / "wheels", "torchlike", "2.0")
    lock, plain = project.folder / "requirements.lock.txt", project.folder / "requirements.txt"
    lock.write_text(f"tinything==1.0 \\\n    --hash=sha256:{hash_of(project, '1.0')}\n")
    plain.write_text("tinything==1.0\ntorchlike==2.0\n")
    installed = project.find(install=True)
    assert "2 packages installed" in installed.stdout
    assert [line for line in project.log.splitlines() if line.startswith("Successfully installed")] == [
        "Successfully installed tinything-1.0",
        "Successfully installed torchlike-2.0",
    ]
    assert project.find(install=True).stdout == f"USE {project.python}"
    # A change of either file starts another install.
    plain.write_text("tinything==1.0\ntorchlike==2.0\n\n")
    assert "installing packages" in project.find(install=True).stdout


def test_the_lock_alone_creates_an_environment_without_torch(project_with_venv: Project) -> None:
    project = project_with_venv
    make_wheel(project.folder / "wheels", "torchlike", "2.0")
    (project.folder / "requirements.in").write_text("tinything\ntorchlike\n")
    lock, plain = project.folder / "requirements.lock.txt", project.folder / "requirements.txt"
    lock.write_text(f"tinything==1.0 \\\n    --hash=sha256:{hash_of(project, '1.0')}\n")
    plain.write_text("tinything==1.0\ntorchlike==2.0\n")
    created = project.find(install=True, requirements="requirements.lock")
    assert created.stdout.endswith(f"USE {project.python}"), created.stderr
    assert "torchlike" not in project.log
    repeated = project.find(install=True, requirements="requirements.lock", python=project.python)
    assert repeated.stdout == f"USE {project.python}"
    # The engine needs torch, too.
    assert "packages are missing" in project.find(install=False).stderr
    assert project.find(install=True).stdout.endswith(f"USE {project.python}")
    assert "Successfully installed torchlike-2.0" in project.log
    assert project.find(install=False).stdout == f"USE {project.python}"


def test_packages_pinned_by_the_lock_are_required(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "requirements.in").write_text("pytest\nno-such-package\nno-such-torch\n")
    (tmp_path / "requirements.lock.txt").write_text("pytest==1\nno-such-package==1\nfor-another-system==1\n")
    monkeypatch.setattr(environment, "PROJECT_DIR", tmp_path)
    assert environment.missing_packages(["requirements.lock"]) == ["no-such-package"]
    assert environment.missing_packages(["requirements"]) == ["no-such-package", "no-such-torch"]


def test_without_ensurepip_the_error_names_the_package_to_install(project: Project) -> None:
    # On Debian without the package python3-venv, a new environment cannot get pip.
    debian = (
        "import subprocess, venv\ndef fail(self, context):\n    raise subprocess.CalledProcessError(1, 'ensurepip')\n"
    )
    refused = project.find(install=True, before=debian + "venv.EnvBuilder._setup_pip = fail")
    assert refused.returncode == 1
    assert "apt install python3-venv" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert project.find(install=True).stdout.endswith(f"USE {project.python}")


def test_the_launcher_continues_in_the_new_environment(project_with_venv: Project) -> None:
    project = project_with_venv
    shutil.copy(PROJECT_DIR / "dream_layer.py", project.folder)
    (project.folder / "launcher" / "stack.py").write_text(
        "import sys, tinything\n"
        "def run_stack(*, services, starter):\n"
        "    sys.stdout.write(f'{sys.prefix} {services} {starter}')\n"
        "    return 3\n"
    )
    project.find(install=True)
    # The base interpreter is the same file as that of the environment, but lacks the package.
    base_python = str(Path(sys.base_prefix) / "bin" / Path(sys.executable).name)
    ended = subprocess.run(
        [base_python if Path(base_python).exists() else sys.executable, "dream_layer.py", "up", "--no-starter"],
        cwd=project.folder,
        capture_output=True,
        text=True,
    )
    assert (ended.stdout, ended.returncode) == (f"{project.venv} True False", 3), ended.stderr


@pytest.mark.slow
def test_pip_ends_with_a_launcher_that_is_killed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        index = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        code = (
            "import sys, time\nfrom pathlib import Path\nfrom launcher.packages import _PipProcess\n"
            f"pip = _PipProcess(Path(sys.executable), ['download', '--index-url', {index!r}, 'tinything'])\n"
            "sys.stdout.write(f'{pip._process.pid}\\n')\nsys.stdout.flush()\ntime.sleep(60)\n"
        )
        launcher = subprocess.Popen([sys.executable, "-c", code], cwd=PROJECT_DIR, stdout=subprocess.PIPE, text=True)
        assert launcher.stdout is not None
        pip = psutil.Process(int(launcher.stdout.readline()))
        # pip sends a request to the index and waits for the response.
        silent.settimeout(60)
        connection, _ = silent.accept()
        with connection:
            assert b"/tinything/" in connection.recv(1000)
            launcher.kill()
            launcher.wait()
            wait_until_gone([pip])
        launcher.stdout.close()


def test_an_old_python_version_is_refused() -> None:
    code = (
        "import sys, runpy\n"
        "sys.version_info = (3, 9, 1)\n"
        f"runpy.run_path({str(PROJECT_DIR / 'dream_layer.py')!r}, run_name='__main__')\n"
    )
    refused = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.strip() == "Dream Layer needs Python 3.10 or newer; this is Python 3.9"


def test_a_closed_pipe_is_not_reported_as_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with `models list | head`: output fails here, not the write of a file."""

    def break_pipe(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    for name in ("VENV", "STAMP", "INSTALLING_MARKER"):
        monkeypatch.setattr(environment, name, tmp_path / name)
    monkeypatch.setattr(environment, "setup_lock", lambda: InstanceLock(tmp_path, "setup"))
    monkeypatch.setattr(environment, "_complete", break_pipe)
    with pytest.raises(BrokenPipeError):
        environment._create(environment.RUNTIME)
    assert environment.setup_lock().holder() is None

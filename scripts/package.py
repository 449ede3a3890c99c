"""Builds the Debian package: a tree made by hand, packed by dpkg-deb. Prints the path of what it made.

It takes what git tracks, with exactly the versions of constraints.txt. Nothing for tests may get in.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from scripts.manual import command_page, file_page

ROOT = Path(__file__).resolve().parent.parent
HOME = Path("usr/lib/callpro-relay")
"""Where the relay and its packages live, a virtual environment on the system's Python."""
CONFIG = Path("etc/callpro-relay")
SCHEMAS = Path("usr/share/callpro-relay")
DOCS = Path("usr/share/doc/callpro-relay")
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/callpro-relay",
    "zsh": "usr/share/zsh/vendor-completions/_callpro-relay",
    "fish": "usr/share/fish/vendor_completions.d/callpro-relay.fish",
}
PROGRAM = f"""#!/{HOME}/bin/python3 -P
import sys
from relay import main
sys.exit(main())
"""


def main() -> int:
    """Build; the exit code."""
    parser = argparse.ArgumentParser(description="Build the Debian package.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="FOLDER", help="default: dist")
    asked = parser.parse_args()
    if sys.version_info[:2] != (3, 11):
        print("the package is for Debian 12: build it with Python 3.11", file=sys.stderr)
        return 1
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    architecture = output("dpkg", "--print-architecture")
    asked.out.mkdir(parents=True, exist_ok=True)
    made = asked.out / f"{project['name']}_{project['version']}_{architecture}.deb"
    with tempfile.TemporaryDirectory() as name:
        os.umask(0o022)
        tree = Path(name) / "tree"
        tree.mkdir()
        install_packages(tree, Path(name), sorted(set(project["optional-dependencies"]) - {"dev"}))
        install_files(tree)
        install_control(tree, project, architecture)
        # Under another name until it is whole: a build that is broken off leaves no package that looks like one.
        run("dpkg-deb", "--build", "--root-owner-group", "-Zxz", tree, made.with_suffix(".part"))
        made.with_suffix(".part").replace(made)
    print(made)
    return 0


def install_packages(tree: Path, scratch: Path, extras: list[str]) -> None:
    """The relay and what it needs to run, on the system's Python, without pip."""
    home = tree / HOME
    run(sys.executable, "-m", "venv", "--without-pip", home)
    source = scratch / "source"
    source.mkdir()
    for file in output("git", "ls-files").splitlines():
        if (ROOT / file).exists():
            (source / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, source / file)
    wanted = f"{source}[{','.join(extras)}]" if extras else str(source)
    run(sys.executable, "-m", "pip", "--python", home / "bin" / "python3", "install", "--quiet", "--no-compile",
        "--disable-pip-version-check", "-c", ROOT / "constraints.txt", wanted)  # fmt: skip
    for left in ("bin", "include", "share"):  # of the packages' own programs nobody here is a user
        shutil.rmtree(home / left, ignore_errors=True)
    (home / "bin").mkdir()
    (home / "bin" / "python3").symlink_to("/usr/bin/python3")
    write(home / "bin" / "callpro-relay", PROGRAM, 0o755)
    write(home / "pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = false\n")
    packages = home / "lib" / "python3.11" / "site-packages"
    for left in (*packages.glob("*.dist-info/direct_url.json"), *packages.glob("*.dist-info/RECORD")):
        left.unlink()  # the one names the folder of this build, the other is pip's
    for folder in packages.rglob("tests"):
        shutil.rmtree(folder)
    # Checked by content: the files stay valid whatever time they are unpacked at, and an edit by hand still counts.
    run(sys.executable, "-m", "compileall", "-q", "-j", "2", "--invalidation-mode", "checked-hash",
        "-s", tree, "-p", "/", packages)  # fmt: skip


def install_files(tree: Path) -> None:
    """Everything that is not Python."""
    link = tree / "usr/bin/callpro-relay"
    link.parent.mkdir(parents=True)
    link.symlink_to(f"../../{HOME}/bin/callpro-relay")
    for unit in units():
        text = unit.read_text("utf-8").replace("/opt/callpro-relay/bin/", f"/{HOME}/bin/")
        write(tree / "lib/systemd/system" / unit.relative_to(ROOT / "systemd"), text)
    examples = ROOT / "config" / "examples"
    write(tree / CONFIG / "relay.yaml", for_editors("relay", (examples / "relay.yaml").read_text("utf-8")))
    write(tree / CONFIG / "routes.yaml", for_editors("routes", (examples / "first-routes.yaml").read_text("utf-8")))
    (tree / CONFIG / "routes.d").mkdir()
    (tree / CONFIG / "secrets").mkdir(mode=0o700)
    command = (sys.executable, ROOT / "relay.py")
    for name in ("relay", "routes"):
        text = for_editors(name, (examples / f"{name}.yaml").read_text("utf-8"))
        write(tree / DOCS / "examples" / f"{name}.yaml", text)
        write(tree / SCHEMAS / f"{name}.schema.json", output(*command, "schema", f"{name}.yaml") + "\n")
    for shell, path in COMPLETIONS.items():
        write(tree / path, output(*command, "completion", shell) + "\n")
    from relay import _parser

    compressed(tree / "usr/share/man/man1/callpro-relay.1.gz", command_page(_parser()))
    compressed(tree / "usr/share/man/man5/callpro-relay.yaml.5.gz", file_page())
    compressed(tree / DOCS / "changelog.gz", (ROOT / "CHANGELOG.md").read_text("utf-8"))
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        write(tree / DOCS / page.relative_to(ROOT).as_posix(), page.read_text("utf-8"))
    write(tree / DOCS / "copyright", licences(tree / HOME))


def install_control(tree: Path, project: dict[str, str], architecture: str) -> None:
    """What dpkg reads: fields, the config files that ops own, and the scripts."""
    control = tree / "DEBIAN"
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    kilobytes = sum(path.stat().st_size for path in files) // 1024
    sums = "".join(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files)
    write(control / "md5sums", sums)
    write(control / "conffiles", f"/{CONFIG}/relay.yaml\n/{CONFIG}/routes.yaml\n")
    needed = ("python3 (>= 3.11~)", "python3 (<< 3.12~)", f"libc6 (>= {libc(tree)})", "ca-certificates",
              "init-system-helpers (>= 1.54~)")  # fmt: skip
    write(control / "control", f"""\
Package: {project["name"]}
Version: {project["version"]}
Architecture: {architecture}
Maintainer: CallPro mail relay <postmaster@callcenter.nl>
Installed-Size: {kilobytes}
Depends: {", ".join(needed)}
Section: mail
Priority: optional
Description: local smart host that hands each customer's mail to that customer's own way out
 An application without any mail settings of its own hands every mail to this
 relay on localhost. The domain of the envelope sender decides which upstream
 it leaves by: an SMTP login, a Microsoft 365 connector, Microsoft Graph,
 SendGrid, Mailgun, Campaign Monitor, or a server of your own with DKIM.
 .
 A mail is on disk before it is acknowledged, and each has its story.
""")  # fmt: skip
    # Sockets first: the service takes its port from them.
    installed = [unit.name for unit in units() if "[Install]" in unit.read_text("utf-8")]
    names = " ".join(sorted(installed, key=lambda name: not name.endswith(".socket")))
    for script in ("postinst", "prerm", "postrm"):
        text = (ROOT / "packaging" / "debian" / script).read_text("utf-8").replace("@UNITS@", names)
        write(control / script, text, 0o755)


def units() -> list[Path]:
    """The units and their drop-ins."""
    wanted = (".service", ".socket", ".timer", ".conf")
    return sorted(path for path in (ROOT / "systemd").rglob("*") if path.is_file() and path.suffix in wanted)


def for_editors(name: str, text: str) -> str:
    """The file with a first line that tells editors where its schema is."""
    return f"# yaml-language-server: $schema=file:///{SCHEMAS}/{name}.schema.json\n{text}"


def libc(tree: Path) -> str:
    """The oldest C library that the compiled packages take, by the tags of their wheels (PEP 600)."""
    tags = " ".join(path.read_text("utf-8") for path in tree.rglob("*.dist-info/WHEEL"))
    found = {(int(major), int(minor)) for major, minor in re.findall(r"manylinux_(\d+)_(\d+)", tags)}
    return "{}.{}".format(*max(found, default=(2, 17)))


def licences(home: Path) -> str:
    """Whose work is in the package, as each says of itself."""
    told = []
    for metadata in sorted(home.rglob("*.dist-info/METADATA")):
        head = metadata.read_text("utf-8").partition("\n\n")[0]
        fields = dict(re.findall(r"^(Name|Version|License-Expression|License): (.+)$", head, re.MULTILINE))
        classified = re.findall(r"^Classifier: License :: (?:OSI Approved :: )?(.+)$", head, re.MULTILINE)
        licence = fields.get("License-Expression") or "; ".join(classified) or fields.get("License", "see its project")
        told.append(f"{fields['Name']} {fields['Version']}: {licence}")
    return (
        "The relay, and with it in /usr/lib/callpro-relay, each with its licence beside it:\n\n"
        + "\n".join(told)
        + "\n"
    )


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(mode)


def compressed(path: Path, text: str) -> None:
    """Without a time inside, so that the same source gives the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout.rstrip("\n")


if __name__ == "__main__":
    sys.exit(main())

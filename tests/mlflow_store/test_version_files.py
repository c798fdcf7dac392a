"""Altered versions, each refused by the name of the file and before anything of it runs; and signatures of versions."""

import importlib.util
import json
import os
import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from afterfit.errors import BundleError, SettingsError
from afterfit.lifecycle import live_world, promotion
from afterfit.mlflow_store import registry
from afterfit.model import signing, version_files
from afterfit.server.registry_watcher import Copies
from afterfit.server.supervisor import version_in
from afterfit.use_case import load_use_case

MARKER = "it-ran"
ROW = {"size": 1.5, "count": 3, "colour": "red"}


@pytest.fixture(scope="module")
def sizes(shared_store, write_use_case_in):
    """A use case with one version, a linear model."""
    from afterfit.commands import train

    file = write_use_case_in(shared_store)
    train.command(str(file), "linear")
    return load_use_case(file)


@pytest.fixture
def version(sizes):
    return registry.version(sizes.name, "1")


@pytest.fixture
def home(version):
    """The version's files in the store, put back after the test."""
    found = registry.model_folder(version)
    copy = found.with_name("untouched")
    shutil.copytree(found, copy)
    yield found
    shutil.rmtree(found, ignore_errors=True)
    copy.rename(found)


def planted(folder):
    """Code that leaves a file behind where it runs."""
    return f"open({str(folder / MARKER)!r}, 'w').close()\n"


def append(file, text):
    file.write_text(file.read_text("utf-8") + text, "utf-8")


def plant(home, name):
    (home / name).parent.mkdir(parents=True, exist_ok=True)
    (home / name).write_text(planted(home.parent))


def poison(home, name):
    """Bytecode in place of a file's own, which Python takes because time and size of the file fit."""
    source = home / name
    text, times = source.read_text("utf-8"), source.stat()
    source.write_text(planted(home.parent) + text, "utf-8")
    cache = Path(importlib.util.cache_from_source(str(source)))
    py_compile.compile(str(source), str(cache), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    source.write_text(text, "utf-8")
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))


def swap(home, one, other):
    (home / one).rename(home / "between")
    (home / other).rename(home / one)
    (home / "between").rename(home / other)


def link(home, name, folder=None):
    """A file, or a folder, that lies outside of the version."""
    outside = home.parent / "outside"
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir()
    shutil.move(home / name, outside / "moved")
    (home / name).symlink_to(outside / "moved", target_is_directory=bool(folder))


def as_folder(home, name):
    (home / name).unlink()
    (home / name).mkdir()


def edit(home, old, new):
    text = (home / "MLmodel").read_text("utf-8")
    assert old in text
    (home / "MLmodel").write_text(text.replace(old, new), "utf-8")


BUNDLE = "artifacts/bundle"
LOADER = "loader_module: mlflow.pyfunc.loaders.code_model"
ATTACKS = {
    "code altered": (lambda home: append(home / "code/afterfit/errors.py", planted(home.parent)), "errors.py was"),
    "code poisoned": (lambda home: poison(home, "code/afterfit/errors.py"), "bytecode.*errors"),
    "package added": (lambda home: plant(home, "code/skops/__init__.py"), "code/skops/__init__.py is not"),
    "module added": (lambda home: plant(home, "code/afterfit/orjson.py"), "code/afterfit/orjson.py is not"),
    "pth added": (lambda home: plant(home, "code/start.pth"), "code/start.pth is not"),
    "sitecustomize": (lambda home: plant(home, "code/sitecustomize.py"), "code/sitecustomize.py is not"),
    "file beside": (lambda home: plant(home, "note.txt"), "note.txt is not"),
    "bare bytecode": (lambda home: plant(home, "code/afterfit/extra.pyc"), "bytecode.*extra.pyc"),
    "model altered": (lambda home: (home / BUNDLE / "estimator.skops").write_bytes(b"PK"), "estimator.skops was"),
    "contract altered": (lambda home: append(home / BUNDLE / "contract.json", "\n"), "contract.json was"),
    "calibration altered": (lambda home: append(home / BUNDLE / "manifest.json", " "), "manifest.json was"),
    "two swapped": (lambda home: swap(home, f"{BUNDLE}/contract.json", f"{BUNDLE}/encoder.json"), "contract.json was"),
    "link to a file": (lambda home: link(home, f"{BUNDLE}/rows.npy"), "rows.npy is a link"),
    "link to a folder": (lambda home: link(home, "code/afterfit/model", "folder"), "code/afterfit/model is a link"),
    "folder for a file": (lambda home: as_folder(home, "code/afterfit/errors.py"), "errors.py is missing"),
    "file missing": (lambda home: (home / "requirements.txt").unlink(), "requirements.txt is missing"),
    "list missing": (lambda home: (home / "files.json").unlink(), "files.json is missing"),
    "list altered": (lambda home: append(home / "files.json", "\n"), "files.json was"),
    "folder added": (lambda home: (home / "code/skops").mkdir(), "code/skops is not one of its folders"),
    "loader": (lambda home: edit(home, LOADER, "loader_module: os"), "MLmodel was"),
    "code path": (lambda home: edit(home, "code: code", "code: artifacts"), "MLmodel was"),
    "environment": (lambda home: append(home / "requirements.txt", "evil==1\n"), "requirements.txt was"),
    "other case": (lambda home: (home / "conda.yaml").rename(home / "Conda.yaml"), "Conda.yaml is not"),
    "case twice": (lambda home: plant(home, "code/afterfit/Errors.py"), "Errors.py is not"),
    "loader's own": (lambda home: append(home / "served.py", planted(home.parent)), "served.py was"),
}


@pytest.mark.parametrize(("attack", "named"), ATTACKS.values(), ids=ATTACKS)
def test_an_altered_version_is_refused_by_the_name_of_the_file_before_anything_of_it_runs(
    version, attack, named, tmp_path
):
    home = version_files.private_copy(registry.model_folder(version), tmp_path / "version", "it")
    attack(home)
    with pytest.raises(BundleError, match=named):
        version_files.check_listed(home, version.uri, version.name, version.tags[registry.FILES])
    assert not (tmp_path / MARKER).exists()


def through_the_loop(use_case, version, folder):
    live = live_world.Live(use_case, None, None, folder)
    return live._folder(version.number)


DOORS = {
    "score, rollback, monitor": lambda _, version, __: registry.load_bundle(version),
    "promote": lambda _, version, folder: promotion.loaded_version(version, folder),
    "serve": lambda _, version, folder: Copies(folder).get(version, 0.0),
    "the loop": through_the_loop,
    "container": lambda _, version, folder: registry.keep(version, folder / "kept"),
    "serve --model": lambda case, v, folder: version_in(registry.model_folder(v), case.name, folder / "copy"),
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS)
def test_every_door_refuses_an_altered_version_and_lets_the_right_one_in(sizes, home, version, door, tmp_path):
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
    assert door(sizes, version, tmp_path / "before")
    poison(home, "code/afterfit/__init__.py")
    with pytest.raises(BundleError, match="bytecode"):
        door(sizes, version, tmp_path / "after")
    assert not (home.parent / MARKER).exists()


def test_a_copy_that_the_loop_left_is_not_taken_for_the_version(sizes, version, tmp_path):
    place = through_the_loop(sizes, version, tmp_path)
    known = (place / "example.json").read_text()
    (place / "example.json").write_text("[]")
    assert (through_the_loop(sizes, version, tmp_path) / "example.json").read_text() == known


def test_what_is_loaded_lies_in_a_folder_that_nobody_else_can_enter(version, monkeypatch):
    seen = []
    check = version_files.check_listed
    monkeypatch.setattr(version_files, "check_listed", lambda *given: (seen.append(given[-1]), check(*given)))
    stat = []
    monkeypatch.setattr(registry, "load_fetched", lambda _, home, __: stat.append(home.parent.stat().st_mode & 0o777))
    registry.load_bundle(version)
    assert (stat, seen[0].exists()) == ([0o700], False)


def test_a_version_of_another_model_is_refused_under_this_name(sizes, version):
    other = registry.register(version.source, "other", version.tags[registry.DIGEST], version.tags, "The same files.")
    with pytest.raises(BundleError, match=f"made as a version of '{sizes.name}', and not of 'other'"):
        registry.load_bundle(other)


@pytest.mark.slow
def test_plain_mlflow_runs_nothing_but_the_loader_of_an_altered_version_and_adds_no_file_to_a_sound_one(home, tmp_path):
    """What MLflow's own loader can refuse: all that is not decided by MLmodel and by the loader itself."""
    beyond = {"loader", "code path", "loader's own", "folder added", "list altered"}
    wanted = {}
    for number, (name, (attack, _)) in enumerate(item for item in ATTACKS.items() if item[0] not in beyond):
        copy = tmp_path / str(number) / "version"
        shutil.copytree(home, copy)
        attack(copy)
        wanted[str(copy)] = name
    before = sorted(home.rglob("*"))
    code = (
        "import json, sys, mlflow\n"
        "def loads(place):\n"
        "    path = list(sys.path)\n"
        "    try:\n"
        "        mlflow.pyfunc.load_model(place)\n"
        "    except Exception:\n"
        "        return False\n"
        "    finally:\n"
        "        sys.path[:] = path\n"
        "    return True\n"
        "print(json.dumps([place for place in sys.argv[1:] if loads(place)]))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", code, *wanted, str(home)]
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert [wanted.get(place, "sound") for place in json.loads(ran.stdout.splitlines()[-1])] == ["sound"]
    assert not list(tmp_path.rglob(MARKER))
    assert sorted(home.rglob("*")) == before


# --- signatures ----------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(monkeypatch):
    """A new pair in the environment; gives it."""
    pair = dict(line.split("=", 1) for line in signing.new_keys().splitlines())
    for name, value in pair.items():
        monkeypatch.setenv(name, value)
    return pair


def listed(home, name, digest):
    """The digest of a list written anew, as a training with the keys of this environment writes it."""
    for file in (version_files.LIST, version_files.SIGNATURE):
        (home / file).unlink(missing_ok=True)
    return version_files.write_list(home, name, digest)[0]


@pytest.fixture
def signed_home(keys, version, tmp_path):
    """A signed copy of the version, and the digest of its list."""
    del keys
    home = version_files.private_copy(registry.model_folder(version), tmp_path / "signed", "it")
    return home, listed(home, "sizes", version.tags[registry.DIGEST])


def check(home, digest, name="sizes"):
    version_files.check_listed(home, "Version 1", name, digest)


def test_a_signed_version_passes_and_one_that_is_not_is_refused_at_every_door(sizes, version, signed_home, tmp_path):
    check(*signed_home)
    for name, door in DOORS.items():
        (tmp_path / name.partition(",")[0]).mkdir()
        with pytest.raises(BundleError, match="is not signed, and AFTERFIT_VERIFY_KEYS asks for a signature"):
            door(sizes, version, tmp_path / name.partition(",")[0])


def test_a_server_that_can_only_verify_refuses_another_key_and_takes_either_of_two(signed_home, keys, monkeypatch):
    monkeypatch.delenv(signing.SIGN)
    check(*signed_home)
    other = signing.new_keys().split(f"{signing.VERIFY}=")[1]
    monkeypatch.setenv(signing.VERIFY, other)
    with pytest.raises(BundleError, match="a signature that none of the 1 key"):
        check(*signed_home)
    monkeypatch.setenv(signing.VERIFY, f"{other}, {keys[signing.VERIFY]}")
    check(*signed_home)


def test_who_can_write_the_registry_and_has_no_key_cannot_make_a_version(signed_home, monkeypatch, version, keys):
    home, _ = signed_home
    signature = (home / version_files.SIGNATURE).read_text()
    monkeypatch.delenv(signing.SIGN)
    monkeypatch.delenv(signing.VERIFY)
    (home / "requirements.txt").write_text("evil==1\n")
    digest = listed(home, "sizes", version.tags[registry.DIGEST])
    check(home, digest)
    (home / version_files.SIGNATURE).write_text(signature)
    monkeypatch.setenv(signing.VERIFY, keys[signing.VERIFY])
    with pytest.raises(BundleError, match="a signature that none"):
        check(home, digest)


def test_a_signature_counts_for_the_model_that_it_was_made_for(signed_home):
    home, digest = signed_home
    with pytest.raises(BundleError, match="made as a version of 'sizes', and not of 'payments'"):
        check(home, digest, "payments")


def test_an_older_version_has_no_signature_and_is_refused_where_one_is_asked_for(keys, version, tmp_path):
    del keys
    home = version_files.private_copy(registry.model_folder(version), tmp_path / "older", "it")
    with pytest.raises(BundleError, match="is not signed"):
        version_files.check_older(home, "Version 1", version.tags[registry.DIGEST])


@pytest.mark.parametrize("spoilt", ["", "abc", "ü", "QUJD", "A" * 44])
def test_a_key_that_is_none_is_an_error_of_the_settings_and_never_lets_a_version_in(version, monkeypatch, spoilt):
    monkeypatch.setenv(signing.VERIFY, spoilt)
    with pytest.raises((SettingsError, BundleError)):
        registry.load_bundle(version)


def test_a_process_does_not_sign_what_it_would_refuse(keys, monkeypatch):
    del keys
    monkeypatch.setenv(signing.VERIFY, signing.new_keys().split(f"{signing.VERIFY}=")[1])
    with pytest.raises(SettingsError, match="would be refused here"):
        signing.signed(b"list")


def test_without_a_key_nothing_is_signed_and_nothing_is_asked_for(monkeypatch):
    for name in (signing.SIGN, signing.VERIFY):
        monkeypatch.delenv(name, raising=False)
    assert signing.signed(b"list") is None
    signing.check_signature("Version 1", None, None)

"""What `import florentune` offers: light to import, every name there, the table equal to the map."""

import subprocess
import sys

import florentune


def test_every_public_name_is_there():
    for name in florentune.__all__:
        assert getattr(florentune, name) is not None


def test_importing_the_package_imports_none_of_its_rooms():
    code = "import sys, florentune; print([n for n in sys.modules if n.startswith('florentune.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(florentune, "detekt")


def test_the_public_table_follows_the_map():
    from test_architecture import ALLOWED

    assert set(florentune._PUBLIC.values()) <= ALLOWED[""]

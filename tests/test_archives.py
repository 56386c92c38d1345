"""Hostile archives: nothing is written where they say, and what they claim to hold costs neither memory nor time."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from florentune.errors import FlorentuneError, PdfError
from florentune.extraction.inputs import collect, opened
from florentune.formats.folder import ImageFolder
from watched import opened_by_a_child

PDF = b"%PDF-1.4\n%%EOF\n"
END = bytes(1024)
OPEN = """
from florentune.extraction.inputs import collect, opened
from florentune.formats.folder import ImageFolder

def load(path):
    if path.endswith(".zip"):
        for name in [*ImageFolder(path).names()][:1]:
            ImageFolder(path).open(name)
        return
    for job in collect([path]).jobs:
        if job.member is None:
            with opened(job):
                pass
"""


def header(name, size=0, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    return info.tobuf(tarfile.GNU_FORMAT)


def member(name, content=PDF, kind=tarfile.REGTYPE, link=""):
    return header(name, len(content), kind, link) + content + bytes(-len(content) % 512)


def zeros(size, unpack=gzip.compress, before=b""):
    """`before` and so many zeros, packed block by block (gzip, bzip2 and xz files may follow each other)."""
    block = unpack(bytes(1 << 22))
    return unpack(before) + block * (size >> 22) + unpack(member("a.pdf") + END)


def zipped(name="a.png", content=b"x", declared=None, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, content)
    found = bytearray(stream.getvalue())
    if declared is not None:
        place = found.index(b"PK\x01\x02") + 24
        found[place : place + 4] = declared.to_bytes(4, "little")
    return bytes(found)


def torn(content, by=0xFF):
    """The packed bytes with some in the middle changed."""
    middle = len(content) // 2
    return content[: middle - 8] + bytes(byte ^ by for byte in content[middle - 8 : middle + 8]) + content[middle + 8 :]


GIB = 2**30
# Made when they are written, since 2 seconds of packing are much for a list of names.
TARS = {
    "a bomb.tar.gz": lambda: zeros(4 * GIB, before=header("zeros.txt", 4 * GIB)),
    "a bomb that is a PDF.tar.gz": lambda: zeros(4 * GIB, before=header("zeros.pdf", 4 * GIB)),
    "a bomb.tar.bz2": lambda: zeros(4 * GIB, bz2.compress, header("zeros.txt", 4 * GIB)),
    "a bomb.tar.xz": lambda: zeros(GIB, lzma.compress, header("zeros.txt", GIB)),
    "a long name of 2 GiB.tar.gz": lambda: zeros(2 * GIB, before=header("././@LongLink", 2 * GIB, b"L")),
    "a long name of 8 GiB.tar": lambda: header("././@LongLink", 8 * GIB - 1, b"L") + bytes(512) + END,
    "extended headers of 8 GiB.tar": lambda: header("x", 8 * GIB - 1, b"x") + bytes(512) + END,
    "long names before long names.tar": lambda: member("././@LongLink", b"a.pdf", b"L") * 5000 + member("a.pdf") + END,
    "cut off.tar": lambda: member("a.pdf", PDF * 100)[:-300],
    "torn.tar.xz": lambda: torn(lzma.compress(bytes(range(256)) * 40)),
    "torn.tar.bz2": lambda: torn(bz2.compress(bytes(range(256)) * 40)),
    "torn.tar.gz": lambda: torn(gzip.compress(bytes(range(256)) * 40)),
    "nothing.tar": lambda: b"",
    "a zip.tar": lambda: zipped("a.pdf", PDF),
}
ZIPS = {
    "a bomb.zip": lambda: zipped(content=bytes(2**29)),
    "a size that lies.zip": lambda: zipped(content=bytes(2**20), declared=100),
    "torn with LZMA.zip": lambda: torn(zipped(content=bytes(range(256)) * 40, method=zipfile.ZIP_LZMA)),
    "torn with bzip2.zip": lambda: torn(zipped(content=bytes(range(256)) * 40, method=zipfile.ZIP_BZIP2)),
    "no zip.zip": lambda: b"PK\x03\x04" + bytes(100),
}


@pytest.fixture(scope="module")
def verdict(tmp_path_factory):
    top = tmp_path_factory.mktemp("archives")
    for name, content in {**TARS, **ZIPS}.items():
        (top / name).write_bytes(content())
    return opened_by_a_child(top, [*TARS, *ZIPS], prepare=OPEN, call="load")


def test_no_archive_cost_much_memory_or_wrote_a_file(verdict):
    assert verdict["seen"] == []
    assert verdict["kilobytes"] < 300_000


@pytest.mark.parametrize("name", [*TARS, *ZIPS])
def test_hostile_archives_are_named_and_refused(verdict, name):
    assert verdict["found"][name].startswith("2 ")
    assert name in verdict["found"][name]


UNREAL = {
    "a symbolic link": member("link.pdf", b"", tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": member("link.pdf", b"", tarfile.LNKTYPE, "../../etc/passwd"),
    "a device": member("null.pdf", b"", tarfile.CHRTYPE),
    "a pipe": member("pipe.pdf", b"", tarfile.FIFOTYPE),
}


@pytest.mark.parametrize("case", UNREAL)
def test_links_and_devices_have_a_record_and_are_not_followed(tmp_path, case):
    (tmp_path / "papers.tar").write_bytes(UNREAL[case] + member("good.pdf") + END)
    good, unreal = sorted(collect([str(tmp_path / "papers.tar")]).jobs, key=lambda job: job.member)
    with opened(good) as path:
        assert path.read_bytes() == PDF
    with pytest.raises(PdfError, match="is no regular file"), opened(unreal):
        pass


@pytest.mark.parametrize(
    "name", ["../../up.pdf", "/tmp/absolute.pdf", "a/../../../b.pdf", "C:\\x.pdf", "n\0ul.pdf", "."]
)
def test_names_that_lead_elsewhere_are_only_names(tmp_path, name):
    home = tmp_path / "a" / "b" / "c"
    home.mkdir(parents=True)
    (home / "papers.tar").write_bytes(member(name) + member("good.pdf") + END)
    for job in collect([str(home / "papers.tar")]).jobs:
        with opened(job) as path:
            assert path.read_bytes() == PDF
            assert path.name == "document.pdf"
        assert not path.exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [home / "papers.tar"]


@pytest.mark.parametrize("name", ["../secret.png", "/etc/secret.png", "a/../../secret.png", "..\\secret.png"])
def test_a_zip_of_images_gives_nothing_from_outside(tmp_path, name):
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "pages.zip").write_bytes(zipped(name))
    assert ImageFolder(tmp_path / "pages.zip").locate(name) is None


def test_many_members_are_not_kept(tmp_path):
    (tmp_path / "papers.tar").write_bytes(header("empty.txt") * 3_000 + member("good.pdf") + END)
    found = collect([str(tmp_path / "papers.tar")])
    assert (len(found.jobs), found.ignored) == (1, 3_000)


@given(
    flips=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=20),
    cut=st.integers(0, 3000),
    pack=st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress]),
)
def test_any_bytes_end_in_records(tmp_path_factory, flips, cut, pack):
    content = bytearray(pack(member("a.pdf") + member("long" * 40 + ".pdf") + END))
    for place, value in flips:
        content[place % len(content)] = value
    file = tmp_path_factory.getbasetemp() / "torn.tar"
    file.write_bytes(content[: max(len(content) - cut, 0)])
    try:
        jobs = collect([str(file)]).jobs
    except FlorentuneError:  # an archive of other files
        return
    assert jobs
    for job in jobs:
        try:
            with opened(job) as path:
                path.read_bytes()
        except PdfError as error:
            assert "torn.tar" in str(error)  # noqa: PT017

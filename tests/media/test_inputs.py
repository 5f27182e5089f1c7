"""What a user types for IMAGE becomes the right list, in the right order, with everything skipped counted."""

import glob
import io
import os
import time
from pathlib import Path

import pytest

from vlinstruct.errors import ImageError, InputError, NetworkError
from vlinstruct.media import inputs
from vlinstruct.media.fetch import Url
from vlinstruct.media.inputs import ImageInput, ListingOptions, list_images, load_source
from vlinstruct.media.kinds import kind_by_name


def load_input(item):
    return load_source(item.source, name=item.id)


def _ids(listed, folder=None):
    return [item.id if folder is None else os.path.relpath(item.id, folder) for item in listed.items]


def test_one_file_is_no_batch_and_keeps_its_name_as_typed(image_file, monkeypatch, tmp_path):
    image_file("sub/a.png")
    monkeypatch.chdir(tmp_path)
    listed = list_images(["./sub/a.png"])
    assert listed.items == (ImageInput(id="./sub/a.png", source=Path("sub/a.png")),)
    assert not listed.is_batch
    assert load_input(listed.items[0]).image.size == (64, 48)


def test_several_files_keep_the_typed_order(image_file):
    paths = [image_file("b.png"), image_file("a.png")]
    listed = list_images(paths)
    assert _ids(listed) == [str(path) for path in paths]
    assert listed.is_batch


def test_the_same_file_twice_is_read_once_and_said(image_file):
    path = image_file()
    listed = list_images([path, path])
    assert _ids(listed) == [str(path)]
    assert listed.notices == ("1 skipped: named twice",)


def test_a_missing_file_stays_in_the_list_to_fail_by_itself(tmp_path, refused):
    listed = list_images([tmp_path / "nosuch.png"])
    refused(ImageError, "image_missing", load_input, listed.items[0])


def test_folder_is_sorted_and_junk_is_counted(image_file, tmp_path):
    for name in (
        "b.png",
        "a.JPG",
        "B.png",
        "c10.webp",
        "c9.webp",
        ".hidden.png",
        "Thumbs.db",
        ".DS_Store",
        "notes.txt",
    ):
        image_file(name)
    image_file("sub/d.png")
    listed = list_images([tmp_path])
    assert _ids(listed, tmp_path) == ["B.png", "a.JPG", "b.png", "c10.webp", "c9.webp"]
    assert listed.is_batch
    assert listed.notices == (
        "1 skipped: files without an image extension",
        "3 skipped: hidden or system files",
        "1 skipped: subfolders (--recursive)",
    )


def test_recursive_enters_subfolders_in_order(image_file, tmp_path):
    for name in ("z.png", "sub/d.png", "sub/deep/e.png", "other/a.png", ".git/x.png"):
        image_file(name)
    listed = list_images([tmp_path], options=ListingOptions(recursive=True))
    assert _ids(listed, tmp_path) == ["z.png", "other/a.png", "sub/d.png", "sub/deep/e.png"]


def test_a_hundred_thousand_entries_are_listed_soon(tmp_path, monkeypatch):
    class Entry:
        def __init__(self, name):
            self.name, self.path = name, f"{tmp_path}/{name}"

        def is_symlink(self):
            return False

        is_dir = is_symlink

    names = [f"{n * 7919 % 100_000:06}.png" for n in range(100_000)]
    monkeypatch.setattr(
        inputs, "_sorted_entries", lambda _: sorted(map(Entry, names), key=lambda e: os.fsencode(e.name))
    )
    start = time.process_time()
    listed = list_images([tmp_path])
    assert time.process_time() - start < 15  # comparing all names with all would take minutes
    assert [os.path.basename(item.id) for item in listed.items] == sorted(names)


def test_a_folder_with_one_picture_is_a_batch(image_file, tmp_path):
    image_file()
    assert list_images([tmp_path]).is_batch


def test_nothing_to_do(tmp_path, image_file, refused):
    (tmp_path / "empty").mkdir()
    refused(InputError, "nothing_to_do", list_images, [tmp_path / "empty"])
    refused(InputError, "nothing_to_do", list_images, [str(tmp_path / "*.png")])
    refused(InputError, "nothing_to_do", list_images, [])
    image_file("texts/notes.txt")
    error = refused(InputError, "nothing_to_do", list_images, [tmp_path / "texts"])
    assert "1 skipped: files without an image extension" in error.message


def test_an_unreadable_folder_is_an_error(tmp_path, refused, monkeypatch):
    def deny(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(inputs.os, "scandir", deny)
    refused(ImageError, "image_permission", list_images, [tmp_path])


def test_links_out_of_the_folder_are_followed_only_on_request(image_file, tmp_path):
    outside, inside = image_file("outside/o.png"), image_file("folder/i.png")
    (tmp_path / "folder/out.png").symlink_to(outside)
    (tmp_path / "folder/in.png").symlink_to(inside)
    (tmp_path / "folder/dir").symlink_to(tmp_path / "outside")
    listed = list_images([tmp_path / "folder"], options=ListingOptions(recursive=True))
    assert _ids(listed, tmp_path / "folder") == ["i.png", "in.png"]
    assert listed.notices == ("2 skipped: links that lead out of the folder (--follow-symlinks)",)
    options = ListingOptions(recursive=True, follow_symlinks=True)
    followed = list_images([tmp_path / "folder"], options=options)
    assert _ids(followed, tmp_path / "folder") == ["i.png", "in.png", "out.png", "dir/o.png"]


def test_a_neighbour_with_the_same_prefix_is_outside(image_file, tmp_path):
    image_file("folder/i.png")
    (tmp_path / "folder/out.png").symlink_to(image_file("folder2/o.png"))
    assert _ids(list_images([tmp_path / "folder"]), tmp_path / "folder") == ["i.png"]


def test_loops_of_links_end_and_are_named(image_file, tmp_path, refused):
    image_file("folder/i.png")
    (tmp_path / "folder/loop").symlink_to(tmp_path / "folder")
    (tmp_path / "folder/self.png").symlink_to(tmp_path / "folder/self.png")
    options = ListingOptions(recursive=True, follow_symlinks=True)
    listed = list_images([tmp_path / "folder"], options=options)
    assert _ids(listed, tmp_path / "folder") == ["i.png", "self.png"]
    refused(ImageError, "image_symlink_loop", load_input, listed.items[1])


def test_globs_give_what_the_shell_would(image_file, tmp_path, monkeypatch):
    for name in ("b.png", "a.png", "COCO_1", "sub/c.png", ".h.png"):
        image_file(name)
    monkeypatch.chdir(tmp_path)
    assert _ids(list_images(["*.png"])) == ["a.png", "b.png"]
    assert list_images(["a*.png"]).is_batch
    assert _ids(list_images(["**/*.png"])) == ["a.png", "b.png", "sub/c.png"]
    everything = list_images(["*"])
    assert _ids(everything) == ["COCO_1", "a.png", "b.png"]
    assert everything.notices == ("1 skipped: folders",)


def test_a_file_whose_name_looks_like_a_glob_or_a_url_is_a_file(image_file, tmp_path, monkeypatch):
    image_file("a[1].png")
    image_file("data:x")
    monkeypatch.chdir(tmp_path)
    listed = list_images(["a[1].png"])
    assert _ids(listed) == ["a[1].png"]
    assert not listed.is_batch
    assert list_images(["data:x"]).items[0].source == Path("data:x")


def test_names_that_are_no_utf8_have_newlines_or_255_bytes(image_file, tmp_path):
    names = [os.fsdecode(b"\xff\xfe.png"), "new\nline.png", "a" * 251 + ".png", "-.png", " .png"]
    for name in names:
        image_file(name)
    listed = list_images([tmp_path])
    assert sorted(_ids(listed, tmp_path)) == sorted(names)
    for item in listed.items:
        assert load_input(item).image.size == (64, 48)


def test_stdin_is_read_up_to_the_cap(image_file, refused, monkeypatch):
    content = image_file().read_bytes()
    listed = list_images(["-"], stdin=io.BytesIO(content))
    assert listed.items == (ImageInput(id="-", source=content),)
    assert not listed.is_batch
    assert load_input(listed.items[0]).image.size == (64, 48)
    monkeypatch.setattr(inputs, "MAX_STDIN_BYTES", len(content) - 1)
    refused(ImageError, "image_file_too_large", list_images, ["-"], stdin=io.BytesIO(content))
    refused(ImageError, "image_empty", list_images, ["-"], stdin=io.BytesIO())


def test_stdin_of_a_terminal_never_waits(refused):
    class Terminal(io.BytesIO):
        def isatty(self):
            return True

    refused(ImageError, "image_no_stdin", list_images, ["-"], stdin=Terminal())
    refused(ImageError, "image_no_stdin", list_images, ["-"])


def test_http_urls_typed_by_the_user_are_kept_for_later(monkeypatch, image_file):
    listed = list_images(["HTTPS://me:secret@example.org/a.png?x=1"])
    assert listed.items[0].id == "https://example.org/a.png?x=1"
    assert listed.items[0].source == Url(address="HTTPS://me:secret@example.org/a.png?x=1", is_typed=True)
    assert not listed.is_batch
    monkeypatch.setattr(inputs, "fetch", lambda url: image_file().read_bytes())
    assert load_input(listed.items[0]).image.size == (64, 48)


def test_a_web_page_in_place_of_a_picture_names_the_url_without_its_query(monkeypatch, refused):
    monkeypatch.setattr(inputs, "fetch", lambda url: b"<html>log in</html>")
    item = list_images(["https://example.org/a.png?signature=hush"]).items[0]
    assert "hush" not in refused(ImageError, "image_html", load_input, item).message


def test_other_schemes_and_data_urls_are_refused(refused):
    refused(InputError, "data_url", list_images, ["data:image/png;base64," + "A" * 1000])
    for text in ("ftp://h/a.png", "file:///etc/passwd", "s3://b/a.png"):
        refused(InputError, "url_scheme", list_images, [text])


def test_offline_refuses_urls(refused):
    options = ListingOptions(offline=True)
    error = refused(NetworkError, "url_offline", list_images, ["http://h/a.png?t=hush"], options=options)
    assert "--offline" in error.message
    assert "hush" not in error.message


@pytest.mark.parametrize(
    ("name", "expected"), [("a.jpeg", True), ("x/y.TIF", True), ("what is this", False), ("a.", False)]
)
def test_image_extensions(name, expected):
    assert (kind_by_name(name) == "picture") is expected


def test_an_empty_path_is_not_the_working_folder():
    with pytest.raises(ImageError, match="the path is empty"):
        list_images([""])


@pytest.mark.parametrize("pattern", ["**/*.png", "x/**", "./**/*.png", "*/**/b.png", "**/x/**/*.png", "**/[[]1]/*.png"])
def test_a_glob_over_folders_matches_what_pythons_does(pattern, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "x/b.png", "x/y/c.png", "x/.h/d.png", ".e/f.png", "x/[1]/g.png", "z.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    right = sorted(path for path in set(glob.glob(pattern, recursive=True)) if not os.path.isdir(path))
    assert sorted(item.id for item in list_images([pattern]).items) == right


def test_a_glob_enters_no_folder_through_a_link(image_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image_file("a.png")
    for link in ("l1", "l2"):
        (tmp_path / link).symlink_to(".")
    assert [item.id for item in list_images(["**/*.png"]).items] == ["a.png"]

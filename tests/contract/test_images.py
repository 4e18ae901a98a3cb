"""Which texts are accepted as an image."""

import base64
import time

import pytest
from pydantic import TypeAdapter, ValidationError

from contract import images
from contract.images import ShownImage, inline_only, labelled, normalized


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("iVBORw0KGgo=", "iVBORw0KGgo="),
        ("data:image/png;base64,iVBORw0KGgo=", "data:image/png;base64,iVBORw0KGgo="),
        ("DATA:IMAGE/PNG;BASE64,iVBORw0KGgoA", "data:image/png;base64,iVBORw0KGgoA"),
        ("data:;base64,iVBORw0KGgo=", "data:image/png;base64,iVBORw0KGgo="),
        ("HTTP://Box:80/Cat.png", "http://Box:80/Cat.png"),
        ("https://x.test/a.png?B=c", "https://x.test/a.png?B=c"),
        ("https://x.test/a cat.png\n", "https://x.test/a cat.png"),
        ("http://[::1]:80/a.png", "http://[::1]:80/a.png"),
        ("http://bücher_2.test/a.png", "http://bücher_2.test/a.png"),
    ],
)
def test_the_head_of_a_url_is_read_without_regard_to_case(given: str, told: str) -> None:
    assert normalized(given) == told


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("http://[", "not a URL"),
        ("http://x.test/" + "a" * 8179, "the address has 8193 characters, and may have 8192"),
        ("http://[" + "0:" * 100_000 + "]/", "the address has 200010 characters"),
        ("http://1.2.3.4:99999/", "not a URL"),
        ("http:///a.png", "names no host"),
        ("http://me:secret@x.test/a.png", "a user or a password"),
        ("http://@x.test/a.png", "a user or a password"),
        ("http://a b.test/a.png", "the host of the address cannot be 'a b.test'"),
        ("http://b.test :80/a.png", "the host of the address cannot be"),
        ("http://a%20b/a.png", "the host of the address cannot be"),
        ("http://a\\b/a.png", "the host of the address cannot be"),
        ("http://a\tb.test/a.png", "control character"),
        ("http://b.test\n.c/a.png", "control character"),
        ("http://b.test/a\x00.png", "control character"),
        ("http:a.png", "names no host"),
        ("file:///etc/passwd", "file URLs are not fetched"),
        ("FTP://x.test/a.png", "ftp URLs are not fetched"),
        ("C:\\cat.png", "c URLs are not fetched"),
        ("data:image/png,iVBORw0KGgo=", "a data URL looks like"),
        ("data:image/png;base64", "a data URL looks like"),
    ],
)
def test_an_invalid_image_is_refused_with_the_reason(given: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        normalized(given)


def test_an_image_to_work_on_is_no_address() -> None:
    assert inline_only("DATA:image/png;base64,iVBORw0KGgo=") == "data:image/png;base64,iVBORw0KGgo="
    with pytest.raises(ValueError, match="not the address of an image"):
        inline_only("HTTPS://x.test/a.png")


@pytest.mark.parametrize(
    "image",
    [
        "data:image/png;base64,@@@@", "data:;base64,", "data:text/html;base64,iVBORw0KGgo=",
        "not base64 !!", " ",
    ],
)  # fmt: skip
def test_what_can_be_no_image_is_refused(image: str) -> None:
    with pytest.raises(ValidationError, match=r"base64|no image"):
        TypeAdapter(ShownImage).validate_python(image)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n....", b"\xff\xd8\xff\xe0", b"GIF87a", b"GIF89a..",
        b"RIFF\x00\x01\x02\nWEBPVP8 ", b"BM....",
    ],
)  # fmt: skip
def test_each_known_format_is_accepted_in_every_spelling_of_base64(data: bytes) -> None:
    plain = base64.b64encode(data).decode()
    unpadded = base64.urlsafe_b64encode(data).rstrip(b"=").decode()
    for text in (plain, unpadded, f"\n{plain[:5]} {plain[5:]}\r\n"):
        assert normalized(text) == plain


@pytest.mark.parametrize(
    ("data", "mime"),
    [
        (b"\x89PNG\r\n\x1a\n....", "png"), (b"\xff\xd8\xff\xe0", "jpeg"), (b"GIF87a", "gif"),
        (b"RIFF\x00\x01\x02\nWEBPVP8 ", "webp"), (b"BM....", "bmp"),
    ],
)  # fmt: skip
def test_the_type_of_an_image_is_that_of_its_bytes(data: bytes, mime: str) -> None:
    plain = base64.b64encode(data).decode()

    for label in ("image/png", "image/x", "application/octet-stream", ""):
        assert normalized(f"data:{label};base64,{plain}") == f"data:image/{mime};base64,{plain}"


def test_spaces_before_a_wrong_sign_take_no_time() -> None:
    began_at = time.perf_counter()
    with pytest.raises(ValueError, match="neither base64"):
        normalized("iVBORw0KGgo" + " " * 3000 + "!")

    assert time.perf_counter() - began_at < 1  # the cube of the spaces took a minute


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (" iVBO Rw0K\nGgo = ", "iVBORw0KGgo="),
        ("iVBORw0KGgoAAA= = ", "iVBORw0KGgoAAA=="),
    ],
)
def test_spaces_are_left_out_wherever_they_are(given: str, told: str) -> None:
    assert normalized(given) == told


@pytest.mark.parametrize("slice_chars", [1, 3, 7, 16])
def test_an_image_is_read_in_slices_as_it_is_read_whole(
    slice_chars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "_SLICE_CHARS", slice_chars)
    data = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
    plain = base64.b64encode(data).decode()
    given = base64.urlsafe_b64encode(data).decode()
    spaced = " ".join(given[at : at + 5] for at in range(0, len(given), 5))

    for text in (plain, given, given.rstrip("="), spaced):
        assert normalized(text) == plain
        assert normalized(f"data:image/x;base64,{text}") == f"data:image/png;base64,{plain}"
        assert labelled("image/x", text) == f"data:image/png;base64,{plain}"
    for wrong in (
        plain[:99] + "=" + plain[99:],
        plain[:99] + "!" + plain[100:],
        plain[:-4] + "é===",
    ):
        with pytest.raises(ValueError, match="base64"):
            normalized(wrong)


def test_an_image_that_is_right_is_not_copied() -> None:
    plain = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(1000)).decode()
    url = f"data:image/png;base64,{plain}"

    assert normalized(plain) is plain
    assert normalized(url) is url


def test_an_image_beside_its_type_is_one_of_a_picture() -> None:
    with pytest.raises(ValueError, match="text/html is no image"):
        labelled("text/html", "iVBORw0KGgo=")

"""Images and files that go with prompts: what is found, what is refused, what is sent."""

import base64
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from batchchat.attachments import attached_at, attachment_identity, with_attachments
from batchchat.errors import AttachmentError
from batchchat.records import Attachment, Prompt
from tests.unit.test_prompts import fault, one, read, user

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
HEADS = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0" + bytes(20),
    "image/gif": b"GIF89a" + bytes(20),
    "image/webp": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(20),
}


def line(value: Any, **more: Any) -> dict[str, Any]:
    return {"id": "a", "prompt": "What?", "image": value, "file": value, **more}


def parts(prompt: Prompt) -> list[dict[str, Any]]:
    at = attached_at(prompt.messages, prompt.turns)
    return with_attachments(prompt.messages, prompt.attachments, at)[at]["content"]


def data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


class TestParts:
    @pytest.mark.parametrize("media_type", list(HEADS))
    def test_images_are_told_by_their_first_bytes(self, tmp_path: Path, media_type: str) -> None:
        (tmp_path / "wrong.txt").write_bytes(HEADS[media_type])
        prompt = one(tmp_path, line("wrong.txt"), images=("image",))
        assert parts(prompt) == [
            {"type": "text", "text": "What?"},
            {"type": "image_url", "image_url": {"url": data_url(media_type, HEADS[media_type])}},
        ]

    def test_detail_goes_with_images(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        prompt = one(tmp_path, line(["a.png", "https://example.org/b.png"]), images=("image",), image_detail="low")
        assert [part["image_url"]["detail"] for part in parts(prompt)[1:]] == ["low", "low"]

    def test_pdf_becomes_a_file_and_text_a_text(self, tmp_path: Path) -> None:
        pdf, text = b"\n%PDF-1.4\n\0\xff", "\ufeffGrüße\n"
        (tmp_path / "d").mkdir()
        (tmp_path / "d" / "c d.pdf").write_bytes(pdf)
        (tmp_path / "notes.md").write_text(text, "utf-8")
        prompt = one(tmp_path, line(["d/c d.pdf", "notes.md"]), files=("file",))
        assert parts(prompt)[1:] == [
            {"type": "file", "file": {"filename": "c d.pdf", "file_data": data_url("application/pdf", pdf)}},
            {"type": "text", "text": "notes.md:\nGrüße\n"},
        ]

    def test_addresses_are_passed_on_as_they_are(self, tmp_path: Path) -> None:
        url = "https://example.org/ä.png?x=1#y"
        prompt = one(tmp_path, line([url, data_url("image/x-own", b"abc")]), images=("image",))
        assert [part["image_url"]["url"] for part in parts(prompt)[1:]] == [url, data_url("image/x-own", b"abc")]
        prompt = one(tmp_path, line(data_url("application/zip", b"PK")), files=("file",))
        assert parts(prompt)[1]["file"] == {"filename": "file.zip", "file_data": data_url("application/zip", b"PK")}

    def test_order_is_images_then_files_as_their_fields_are_named(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        (tmp_path / "t").write_text("t")
        prompt = one(
            tmp_path, {"prompt": "x", "f": "t", "b": "a.png", "a": "http://e.org/"}, images=("b", "a"), files=("f",)
        )
        assert [part["type"] for part in parts(prompt)] == ["text", "image_url", "image_url", "text"]
        assert parts(prompt)[2]["image_url"]["url"] == "http://e.org/"

    @pytest.mark.parametrize("value", [None, "", [], [None, ""]])
    def test_nothing_is_nothing(self, tmp_path: Path, value: Any) -> None:
        prompt = one(tmp_path, line(value), images=("image",), files=("file",))
        assert prompt.attachments == ()

    def test_they_go_with_the_last_message_of_the_user_or_the_first_turn(self, tmp_path: Path) -> None:
        url = "https://example.org/a.png"
        given = [
            user("a"),
            {"role": "assistant", "content": "b"},
            user([{"type": "text", "text": "c"}]),
            {"role": "assistant", "content": "d"},
        ]
        chat, turns, batch = read(
            tmp_path,
            {"id": 1, "messages": given, "image": url},
            {"id": 2, "turns": ["t", "u"], "image": url},
            {"custom_id": "3", "body": {"messages": given}, "image": url},
            images=("image",),
        )
        for prompt in (chat, batch):
            at = attached_at(prompt.messages, prompt.turns)
            sent = with_attachments(prompt.messages, prompt.attachments, at)
            assert at == 2
            assert sent[2]["content"] == [
                {"type": "text", "text": "c"},
                {"type": "image_url", "image_url": {"url": url}},
            ]
            assert [*sent[:2], sent[3]] == [*given[:2], given[3]]
        assert chat.messages == given
        assert attached_at(turns.messages, turns.turns) == 0

    def test_every_variant_has_them(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(PNG)
        items = read(tmp_path, line("a.png"), images=("image",), samples=2, templates={"a": "x", "b": "y"})
        assert [len(item.attachments) for item in items] == [1, 1, 1, 1]


class TestFaults:
    @pytest.mark.parametrize(
        ("value", "told"),
        [
            ("none.png", "'image': 'none.png': the file cannot be read (No such file or directory)"),
            ("dir", "'image': 'dir': expected a file, found something else"),
            ("pipe", "'image': 'pipe': expected a file, found something else"),
            ("empty", "'image': 'empty': the file is empty"),
            ("text", "'image': 'text': expected a PNG, JPEG, GIF or WebP image, found another kind of file"),
            ("big.png", "'image': 'big.png': holds 101 bytes, expected at most 100 (prompt.max_file_bytes)"),
            ("../out.png", "'image': '../out.png': leads out of the input file's folder; name a folder that holds it with --file-root"),
            ("link.png", "'image': 'link.png': leads out of"),
            ("dir/up/out.png", "'image': 'dir/up/out.png': leads out of"),
            ("/etc/hostname", "'image': '/etc/hostname': leads out of"),
            ("a\0b", "'image': 'a\\x00b': found a path with a zero byte in it"),
            ("x" * 300, "'image': '" + "x" * 200 + "…': the file cannot be read (File name too long)"),
            ("file:///etc/passwd", "found an address with file:, expected a path, or http:, https: or data:"),
            ("FTP://example.org/a.png", "found an address with ftp:"),
            ("https:///a.png", "found an address that is none"),
            ("https://[::1/a.png", "found an address that is none"),
            ("https://example.org/a b.png", "found an address that is none"),
            ("data:image/png,abc", "expected data such as data:image/png;base64,…"),
            ("data:image/png;base64,a b", "expected data such as"),
            ("data:text/plain;base64,YWJj", "expected data such as data:image/png;base64,…"),
            (data_url("image/png", bytes(101)), "expected at most 100"),
            (3, "expected a path or an address, a list of them, or null in 'image', found an integer"),
            ({"url": "x"}, "in 'image', found an object"),
            ([["a"]], "in 'image', found a list"),
        ],
        ids=lambda value: str(value)[:30].replace("\0", ""),
    )  # fmt: skip
    def test_what_cannot_be_sent_is_told(self, tmp_path: Path, value: Any, told: str) -> None:
        folder = tmp_path / "in"
        (folder / "dir").mkdir(parents=True)
        (tmp_path / "out.png").write_bytes(PNG)
        (folder / "empty").touch()
        (folder / "text").write_text("x")
        (folder / "big.png").write_bytes(PNG + bytes(73))
        os.mkfifo(folder / "pipe")
        os.symlink("../out.png", folder / "link.png")
        os.symlink("../..", folder / "dir" / "up")
        assert told in fault(folder, line(value), images=("image",), max_file_bytes=100)

    @pytest.mark.skipif(not os.path.exists("/proc/version"), reason="there are no such files here")
    def test_a_file_without_a_size_of_its_own_is_told(self, tmp_path: Path) -> None:
        """It would be found to have changed when it is sent."""
        reason = fault(tmp_path, {"id": "a", "prompt": "p", "f": "/proc/version"}, files=("f",), file_root="/")
        assert "found one that is made as it is read" in reason

    def test_a_missing_field_is_told(self, tmp_path: Path) -> None:
        assert fault(tmp_path, {"prompt": "x", "img": "a"}, images=("image",)) == (
            "expected the path or address of an image or null in 'image', found only 'prompt', 'img'"
        )

    @pytest.mark.parametrize("data", [b"PK\x03\x04\0", b"abc\0", b"caf\xe9", b"x" * 8191 + "é".encode()[:1]])
    def test_files_are_pdf_or_text(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "f").write_bytes(data)
        assert "expected a PDF or text in UTF-8, found another kind of file" in fault(
            tmp_path, line("f"), files=("file",)
        )

    def test_a_character_across_the_bytes_looked_at_is_fine(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"x" * 8191 + "é".encode())
        assert parts(one(tmp_path, line("f"), files=("file",)))[1]["text"].endswith("xé")

    def test_the_address_of_a_file_is_told(self, tmp_path: Path) -> None:
        reason = fault(tmp_path, line("https://example.org/a.pdf"), files=("file",))
        assert reason.endswith("found the address of a file, which chat completions do not take; expected a path")

    def test_all_of_a_prompt_are_bounded(self, tmp_path: Path) -> None:
        with open(tmp_path / "a.png", "wb") as file:
            file.write(PNG)
            file.truncate(20 << 20)
        assert len(one(tmp_path, line(["a.png"] * 2), images=("image",)).attachments) == 2
        assert "expected at most 52,428,800" in fault(tmp_path, line(["a.png"] * 3), images=("image",))
        assert one(tmp_path, line(["a.png"] * 3), images=("image",), max_file_bytes=70 << 20)
        assert "found more than 500 images and files" in fault(
            tmp_path, line(["http://e.org/"] * 501), images=("image",)
        )


class TestRoot:
    def test_another_root_opens_its_folder_only(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "a.png").write_bytes(PNG)
        (tmp_path / "in" / "b.png").write_bytes(PNG)
        root = str(tmp_path / "images")
        for given in ("../images/a.png", "a.png", str(tmp_path / "images" / "a.png")):
            assert (
                one(tmp_path / "in", line(given), images=("image",), file_root=root).attachments[0].path
                == f"{root}/a.png"
            )
        assert "leads out of" in fault(tmp_path / "in", line("b.png"), images=("image",), file_root=root)
        assert one(tmp_path / "in", line(str(tmp_path / "in" / "b.png")), images=("image",), file_root="/").attachments

    def test_a_root_that_is_no_folder_is_told(self, tmp_path: Path) -> None:
        reason = fault(tmp_path, line("a.png"), images=("image",), file_root=str(tmp_path / "none"))
        assert reason.endswith("none' (prompt.file_root)")
        assert "'a.png': cannot be looked up, as there is no folder '" in reason

    def test_paths_of_standard_input_start_from_the_working_folder(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from batchchat.attachment_fields import AttachmentFields

        monkeypatch.chdir(tmp_path)
        Path("a.png").write_bytes(PNG)
        fields = AttachmentFields(["image"], [], detail=None, root=None, max_bytes=100)
        assert fields.find({"image": "a.png"}, "-")[0].path == str(tmp_path.resolve() / "a.png")


class TestChanges:
    @pytest.mark.parametrize("how", ["gone", "longer", "touched", "replaced", "folder", "pipe", "link"])
    def test_a_file_that_is_not_the_one_found_is_not_sent(self, tmp_path: Path, how: str) -> None:
        path = tmp_path / "a.png"
        path.write_bytes(PNG)
        prompt = one(tmp_path, line("a.png"), images=("image",))
        if how == "longer":
            path.write_bytes(PNG + b"x")
        elif how == "touched":
            os.utime(path, ns=(1, 1))
        else:
            path.rename(tmp_path / "old.png")
        if how == "replaced":
            path.write_bytes(PNG)
        elif how == "folder":
            path.mkdir()
        elif how == "pipe":
            os.mkfifo(path)
        elif how == "link":
            (tmp_path / "other.png").write_bytes(PNG)
            path.symlink_to("other.png")
        with pytest.raises(
            AttachmentError, match=r"^a.png: (changed since the input was read|cannot be read any more)"
        ):
            parts(prompt)

    def test_text_that_turns_out_to_be_none_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "f").write_bytes(b"x" * 9000 + b"\xff")
        prompt = one(tmp_path, line("f"), files=("file",))
        with pytest.raises(AttachmentError, match="not UTF-8"):
            parts(prompt)

    def test_identity_is_the_content_not_the_place(self, tmp_path: Path) -> None:
        for name, data in (("a.png", PNG), ("b.png", PNG), ("c.png", PNG + b"x")):
            (tmp_path / name).write_bytes(data)
        a, b, c = (
            attachment_identity(one(tmp_path, line(name), images=("image",)).attachments[0])
            for name in ("a.png", "b.png", "c.png")
        )
        assert a == b != c
        low = one(tmp_path, line("a.png"), images=("image",), image_detail="low").attachments[0]
        assert attachment_identity(low) != a
        (tmp_path / "a.png").unlink()
        assert attachment_identity(low)["digest"] is None

    def test_a_digest_is_made_once_and_again_after_a_change(self, tmp_path: Path) -> None:
        def digest() -> str:
            return attachment_identity(one(tmp_path, line("a.png"), images=("image",)).attachments[0])["digest"]

        found = []
        for time, content in enumerate((b"1", b"2", b"22")):
            (tmp_path / "a.png").write_bytes(PNG + content)
            os.utime(tmp_path / "a.png", (time, time))
            found.append(digest())
            assert digest() == found[-1]
        assert len(set(found)) == 3

    def test_files_that_cannot_be_read_are_not_the_same(self, tmp_path: Path) -> None:
        """Else a prompt could get the answer to another's file, which could be read again by then."""
        parts = [Attachment(kind="image", given=name, path=str(tmp_path / name), stamp=(1, 2, 3)) for name in "ab"]
        parts += [Attachment(kind="image", given=name, trouble="gone") for name in "ab"]
        identities = [json.dumps(attachment_identity(part)) for part in parts]
        assert len(set(identities)) == 4

    def test_ids_of_lines_without_one_hang_on_what_they_name(self, tmp_path: Path) -> None:
        plain, a, b = ({"prompt": "x", "image": url} for url in (None, "http://e.org/a", "http://e.org/b"))
        ids = [item.id for item in read(tmp_path, a, b, plain, images=("image",))]
        assert ids == [item.id for item in reversed(read(tmp_path, plain, b, a, images=("image",)))]
        assert len(set(ids)) == 3
        assert ids[2] == one(tmp_path, {"prompt": "x"}).id


def test_reading_the_input_keeps_no_content(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG + bytes(5 << 20))
    tracemalloc.start()
    try:
        items = read(tmp_path, *({"id": n, "prompt": "x", "image": "a.png"} for n in range(20)), images=("image",))
        assert len(items) == 20
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()
